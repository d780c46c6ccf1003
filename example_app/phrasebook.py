"""A translator that works offline, because it only knows one page of phrases, and that says so."""

import unicodedata
from dataclasses import dataclass
from difflib import get_close_matches

LANGUAGES = {"ja": "日本語", "en": "English", "fr": "Français", "es": "Español"}

#: ``exact`` looks a phrase up; ``nearest`` (early access) takes the most similar one if there is no such phrase.
ENGINES = ("exact", "nearest")

PHRASES = [
    {"ja": "こんにちは", "en": "Hello", "fr": "Bonjour", "es": "Hola"},
    {"ja": "おはようございます", "en": "Good morning", "fr": "Bonjour", "es": "Buenos días"},
    {"ja": "こんばんは", "en": "Good evening", "fr": "Bonsoir", "es": "Buenas noches"},
    {"ja": "ありがとう", "en": "Thank you", "fr": "Merci", "es": "Gracias"},
    {"ja": "ありがとうございます", "en": "Thank you very much", "fr": "Merci beaucoup", "es": "Muchas gracias"},
    {"ja": "どういたしまして", "en": "You're welcome", "fr": "De rien", "es": "De nada"},
    {"ja": "すみません", "en": "Excuse me", "fr": "Excusez-moi", "es": "Disculpe"},
    {"ja": "お元気ですか", "en": "How are you?", "fr": "Comment allez-vous ?", "es": "¿Cómo está?"},
    {"ja": "お会いできて嬉しいです", "en": "Nice to meet you", "fr": "Enchanté", "es": "Mucho gusto"},
    {"ja": "駅はどこですか", "en": "Where is the station?", "fr": "Où est la gare ?", "es": "¿Dónde está la estación?"},
    {"ja": "いくらですか", "en": "How much is it?", "fr": "C'est combien ?", "es": "¿Cuánto cuesta?"},
    {"ja": "お水をください", "en": "Water, please", "fr": "De l'eau, s'il vous plaît", "es": "Agua, por favor"},
    {"ja": "もう一度お願いします", "en": "Once more, please", "fr": "Encore une fois", "es": "Otra vez, por favor"},
    {"ja": "明日また会いましょう", "en": "See you tomorrow", "fr": "À demain", "es": "Hasta mañana"},
    {"ja": "さようなら", "en": "Goodbye", "fr": "Au revoir", "es": "Adiós"},
]


@dataclass(frozen=True)
class Translation:
    """An answer of the phrase book. ``text`` is None when it has none; ``phrase`` is the entry that was used."""

    text: str | None
    phrase: str | None


def translate(text: str, source: str, target: str, engine: str = "exact") -> Translation:
    """Look ``text`` up. ``source`` and ``target`` are keys of LANGUAGES, ``engine`` is one of ENGINES."""
    known = {_plain(phrase[source]): phrase for phrase in PHRASES}
    wanted = _plain(text)
    if wanted not in known and engine == "nearest":
        wanted = next(iter(get_close_matches(wanted, known, n=1, cutoff=0.5)), wanted)
    found = known.get(wanted)
    return Translation(found[target], found[source]) if found else Translation(None, None)


def _plain(text: str) -> str:
    # Width, case, accents, spaces and punctuation are not what makes a phrase. A dakuten is (か is not が).
    letters = unicodedata.normalize("NFKD", text.casefold())
    kept = (c for c in letters if unicodedata.category(c)[0] in "LN" or c in "\u3099\u309a")
    return unicodedata.normalize("NFC", "".join(kept))
