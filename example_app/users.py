"""The two demo users, and Flask-Login. Managing users is the application's job, not the session's."""

from dataclasses import dataclass

from flask_login import LoginManager, UserMixin
from werkzeug.security import check_password_hash, generate_password_hash


@dataclass(frozen=True, eq=False)
class User(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    """A user of the demo. ``role`` is what the session keeps as ``user_role``."""

    id: str
    name: str
    role: str
    password_hash: str


#: Shown on the sign-in form: id → password.
DEMO_PASSWORDS = {"hanako": "sakura-2025", "admin": "fuji-3776"}

USERS = {
    "hanako": User("hanako", "花子 Hanako", "user", generate_password_hash(DEMO_PASSWORDS["hanako"])),
    # `admin` is one of PRIVILEGED_ROLES: when nothing can confirm the session, this role is not believed.
    "admin": User("admin", "管理者 Admin", "admin", generate_password_hash(DEMO_PASSWORDS["admin"])),
}

login_manager = LoginManager()


@login_manager.user_loader  # type: ignore[untyped-decorator]
def load_user(user_id: str) -> User | None:
    """The user with this id, for Flask-Login."""
    return USERS.get(user_id)


def authenticate(user_id: str, password: str) -> User | None:
    """The user, if the password is right."""
    user = USERS.get(user_id)
    return user if user is not None and check_password_hash(user.password_hash, password) else None
