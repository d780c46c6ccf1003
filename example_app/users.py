"""The two demo users, and Flask-Login. Managing users is the application's job, not the session's."""

from dataclasses import dataclass

from flask_login import LoginManager, UserMixin
from werkzeug.security import check_password_hash


@dataclass(frozen=True, eq=False)
class User(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    """A user of the demo. ``role`` is what the session keeps as ``user_role``."""

    id: str
    name: str
    role: str
    password_hash: str


#: Shown on the sign-in form: id → password.
DEMO_PASSWORDS = {"hanako": "sakura-2025", "admin": "fuji-3776"}

#: With their passwords as ``werkzeug.security.generate_password_hash`` makes them.
USERS = {
    "hanako": User("hanako", "花子 Hanako", "user", "scrypt:32768:8:1$pXrA1PItD2GrJDKa$16d7660fed0f200e"
        "37603a742e93a43660c4e9c1c81fded2562d6ea0beab0c72be2cbefa2992f773201c6d3916ac72384be7ad8be3609590ca67c9525f08cf24"),
    # `admin` is one of PRIVILEGED_ROLES: when nothing can confirm the session, this role is not believed.
    "admin": User("admin", "管理者 Admin", "admin", "scrypt:32768:8:1$QppP8zLCvl9dMEz2$1280a73835ef5c7d"
        "d8e20f186099bccf4cf5cb8223c4c48a02506d442abf61750a05a19582ad4f89dabe5ec3b914ffa448cfcd6c12d8be13104c4132163d391f"),
}  # fmt: skip

login_manager = LoginManager()


@login_manager.user_loader  # type: ignore[untyped-decorator]
def load_user(user_id: str) -> User | None:
    """Return the user with this id, for Flask-Login."""
    return USERS.get(user_id)


def authenticate(user_id: str, password: str) -> User | None:
    """Return the user, if the password is right."""
    user = USERS.get(user_id)
    return user if user is not None and check_password_hash(user.password_hash, password) else None
