"""A provider of OAuth 2 and OpenID Connect on this machine, over HTTP: it signs in the user that it is told to."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import requests
from flask import Flask, jsonify, redirect, request
from joserfc import jwt
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server

CLIENT = {"client_id": "the-client", "client_secret": "its secret"}

LIFE = 3600
"""Seconds for which a token is good."""


class Provider:
    """One provider.

    :ivar claims: of the user who signs in.
    """

    def __init__(self) -> None:
        self.url = ""
        self.claims: dict[str, Any] = {}
        self._key = RSAKey.generate_key(2048, {"kid": "one"})
        self._nonces: dict[str, str] = {}

    def signs_in(self, client: Any, path: str) -> Any:
        """Open `path` as a browser does, go to the provider and back, and return the application's answer."""
        asked = client.get(path)
        assert asked.status_code == 302, asked.text
        back = requests.get(asked.location, allow_redirects=False, timeout=10)
        assert back.status_code == 302, back.text
        return client.get(back.headers["Location"])

    def application(self) -> Flask:
        """Return the application with the provider's pages."""
        app = Flask("provider")
        app.add_url_rule("/.well-known/openid-configuration", view_func=self._metadata)
        app.add_url_rule("/authorize", view_func=self._authorize)
        app.add_url_rule("/token", view_func=self._token, methods=["POST"])
        app.add_url_rule("/userinfo", "userinfo", lambda: jsonify(self.claims))
        app.add_url_rule("/jwks", "jwks", lambda: jsonify(keys=[self._key.as_dict(private=False)]))
        return app

    def _metadata(self) -> Any:
        pages = {"authorization": "authorize", "token": "token", "userinfo": "userinfo"}
        return jsonify(
            issuer=self.url,
            jwks_uri=f"{self.url}/jwks",
            id_token_signing_alg_values_supported=["RS256"],
            **{f"{name}_endpoint": f"{self.url}/{page}" for name, page in pages.items()},
        )

    def _authorize(self) -> Any:
        code = secrets.token_hex()
        self._nonces[code] = request.args.get("nonce", "")
        return redirect(f"{request.args['redirect_uri']}?{urlencode({'code': code, 'state': request.args['state']})}")

    def _token(self) -> Any:
        token = {"access_token": secrets.token_hex(), "token_type": "Bearer", "expires_in": LIFE}
        if request.form["grant_type"] == "refresh_token":
            return jsonify(token)
        now = int(time.time())
        claims = {**self.claims, "iss": self.url, "aud": CLIENT["client_id"], "iat": now, "exp": now + LIFE}
        claims["nonce"] = self._nonces.pop(request.form["code"])
        signed = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self._key)
        return jsonify(**token, refresh_token=secrets.token_hex(), scope="openid email", id_token=signed)


@contextmanager
def provider() -> Iterator[Provider]:
    """Run a provider."""
    it = Provider()
    server = make_server("127.0.0.1", 0, it.application(), threaded=True)
    it.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield it
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
