from flask import Flask, redirect, render_template_string, request

from flask_langpont_session import LangPontSession, session

app = Flask(__name__)
app.config.update(
    SECRET_KEY="only-for-trying-it-out-on-this-machine",
    LANGPONT_SESSION_REDIS_URL="redis://localhost:6379/0",
    LANGPONT_SESSION_PRESET="application",
)
app.config.from_prefixed_env()  # FLASK_LANGPONT_SESSION_REDIS_URL in the environment wins
langpont = LangPontSession(app)

PAGE = """
<h1>Tea shop</h1>
<p>Hello {{ session.get("username", "visitor") }}. The session is at level {{ session.level }}.</p>
<form method="post" action="/add">
  {% for item in "sencha", "hojicha", "matcha" %}<button name="item" value="{{ item }}">{{ item }}</button>{% endfor %}
</form>
<ul>{% for item, number in session.get("cart", {}).items() %}<li>{{ number }} x {{ item }}</li>{% endfor %}</ul>
{% if "username" in session %}
  <form method="post" action="/order"><button>Order</button></form>
  <form method="post" action="/sign-out"><button>Sign out</button></form>
{% else %}
  <form method="post" action="/sign-in"><input name="name" value="hanako"><button>Sign in</button></form>
{% endif %}
"""


@app.get("/")
def index():
    return render_template_string(PAGE)


@app.post("/add")
def add():
    cart = session.setdefault("cart", {})
    item = request.form["item"]
    cart[item] = cart.get(item, 0) + 1
    return redirect("/")


@app.post("/sign-in")
def sign_in():
    session["username"] = request.form["name"]
    return redirect("/")


@app.post("/sign-out")
def sign_out():
    session.sign_out()
    return redirect("/")


@app.post("/order")
def order():
    if "username" not in session or not session.get("cart"):
        return redirect("/")
    session["ordered"] = session["cart"]
    if session.flush() == "nowhere":
        return "We cannot take your order now. Your cart is still there: please try again in a minute.", 503
    del session["cart"]
    return f"Thank you, {session['username']}. You ordered: {session['ordered']}"
