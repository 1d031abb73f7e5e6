"""Names of secrets: whether the value of `db/password` or `accountKey` may be recorded.

A name is judged by its words: `pass` is the name of a secret, `passes` is not. The words are those that detectors of
secrets (detect-secrets, gitleaks) look for. What machine learning calls tokens and keys is left alone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

__all__ = ["Judgement", "hides", "judge", "words_of"]

Judgement = Literal["never", "if-random", "unless-number", "always"]
"""When the value of a name is a secret."""

_LONGEST_NAME = 256
_ROOTS = (
    r"(?i)pass|pw|pat|secret|token|key|cred|auth|bearer|cookie|dsn|sas|jwt|otp|psk|sig|webhook|conn|session|"
    r"kennwort|senha|contrase"
)
"""Parts of the names of secrets: most names have none of them, and need no further check."""
_WORD = r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+"


def words_of(text: str) -> frozenset[str]:
    """Return the words of a list in one text."""
    return frozenset(text.split())


_NEUTRAL = words_of(
    "value val str b64 base64 pem data content contents default env prod production dev test staging"
)
"""At the end of a name, these words do not say what it is for, nor do numbers."""

_ALWAYS_PARTS = (
    r"passw|passphrase|passcode|pwd$|secret(?!ar)|credential|^creds?$|kennwort|^senha$|contrase|"
    r"authorization$|^bearer$|^cookies?$|^psk$|^webhook"
)
"""One of these words anywhere in a name makes it the name of a secret."""
_ALWAYS_LAST = words_of("dsn sas jwt otp totp pw connstr authtoken")
_COMPOUNDS = (
    r"(?:db|database|user|root|admin|ssh|smtp|imap|ftp|mail|email|my|sql|mysql|pg|postgres|redis|mongo|ldap|proxy|"
    r"http|login|key|sudo|wifi)pass"
)
"""Words that end in `pass` and are passwords; `bypass` and `compass` are none."""
_HARMLESS_PASS = words_of("""
    num first second third last next forward backward fwd bwd two single multi low high band by one per each eval
    train optimizer compiler
""")
_HARMLESS_TOKEN = words_of("""
    pad padding eos bos unk unknown mask cls sep separator special start end stop begin image audio video vision fim
    decoder encoder class register per num n no max min next first last prev previous blank oov newline space
    placeholder boundary sub word input output by each
""")
_HARMLESS_TOKENS = _HARMLESS_TOKEN | words_of("""
    total prompt train training seen context added extra count of additional bad visual patch masked avg mean batch
    target generated completion suppress forced reserved prefix suffix latent query new all text label
""")
_OWNERS_OF_KEYS = words_of("""
    api access account storage ssh private priv encryption decryption secret master shared signing auth authentication
    service db database client deploy license subscription webhook hmac jwt aes rsa pgp gpg admin crypt
""")
_SERVICES = words_of("""
    wandb openai anthropic aws azure gcp huggingface hf comet neptune stripe datadog sendgrid mailgun twilio slack
    sentry algolia mapbox github gitlab cohere mistral replicate pinecone langsmith groq newrelic clearml mlflow
""")
"""Services whose settings have a bare `key`."""
_KEY = (
    rf"(?:{'|'.join(sorted(_OWNERS_OF_KEYS | _SERVICES, key=len, reverse=True))}|pass){{1,3}}keys?"
)
_RANDOM_LAST = words_of("key keys sig signature session sessionid pass token")
_LEAST_RANDOM = 16
_LONG_HEX = 24
_FEW_DIGITS = 2
_LONG_NUMBER = 4
_LONGEST_PLAIN = 32

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?"
_SWITCHES = frozenset({"true", "false", "yes", "no", "on", "off", "null", "none", "nan", "~", ""})
_SCHEMES = words_of(
    "basic bearer digest ntlm kerberos oauth oauth2 iam ldap saml anonymous default auto"
)
"""Values of `auth` that are no secrets."""


def judge(name: str, *, query: bool = False) -> Judgement:
    """Say when the value of this name is a secret.

    Args:
        name: A name, or a path of names such as `a/b/c`. Only the end of a very long one counts.
        query: The name is in the query of a URL, where `key` and `sig` are secrets.
    """
    name = name[-_LONGEST_NAME:]
    return _judge(name, query) if re.search(_ROOTS, name) is not None else "never"


@lru_cache(maxsize=256)
def _judge(name: str, query: bool) -> Judgement:  # noqa: FBT001 - a cached function's key
    parts = [[word.lower() for word in re.findall(_WORD, part)] for part in name.split("/")]
    words = [word for part in parts for word in part]
    if any(re.search(_ALWAYS_PARTS, word) for word in words):
        return "always"
    while words and (words[-1].isdecimal() or words[-1] in _NEUTRAL):
        words.pop()
    if not words:
        return "never"
    *before, last = words
    found = _by_last(last, before)
    if found in {"if-random", "never"} and _has_key_of(words):
        return "always"
    if query and (found == "if-random" or last == "auth"):
        return "unless-number"
    return found


def _by_last(last: str, before: list[str]) -> Judgement:
    """Judge a name by its last word that says something; the words before it may say that it is harmless."""
    previous = before[-1] if before else ""
    if last in _ALWAYS_LAST or re.fullmatch(_COMPOUNDS, last):
        return "always"
    if previous in {"connection", "conn"} and last in {"string", "str"}:
        return "always"
    if last in {"auth", "pat"}:
        return "unless-number"
    if last == "pass":
        return "never" if previous in _HARMLESS_PASS else "unless-number"
    if last == "token" or (last.endswith("token") and last[:-5] not in _HARMLESS_TOKEN):
        return "never" if previous in _HARMLESS_TOKEN else "unless-number"
    if last == "tokens" or (last.endswith("tokens") and last[:-6] not in _HARMLESS_TOKENS):
        return "never" if previous in _HARMLESS_TOKENS else "unless-number"
    return "if-random" if last in _RANDOM_LAST else "never"


def _has_key_of(words: list[str]) -> bool:
    """Tell whether words end in the key of somebody: `accountKey`, `sshkey`, `wandb/key`."""
    last = words[-1]
    if last not in {"key", "keys"}:
        return re.fullmatch(_KEY, last) is not None
    previous = words[-2] if len(words) > 1 else ""
    return previous in _OWNERS_OF_KEYS or not _SERVICES.isdisjoint(words)


def hides(name: str, value: str, *, query: bool = False, prose: bool = False) -> bool:
    """Tell whether a value is a secret because of its name.

    With `prose` it may be the next word of a sentence instead, as in "fix auth: retry".
    """
    found = judge(name, query=query)
    if found == "never":
        return False
    plain = value[: _LONGEST_PLAIN + 4].strip("\"' ")
    if len(plain) <= _LONGEST_PLAIN and plain.lower() in _SWITCHES:
        return False
    if found == "always" or len(plain) > _LONGEST_PLAIN:
        return found != "if-random" or looks_random(value)
    if found == "if-random":
        return looks_random(value)
    if prose and plain.isalpha() and plain.islower():
        return not name.lower().endswith(("auth", "token", "tokens"))
    if re.fullmatch(_NUMBER, plain) or plain.lower() in _SCHEMES:
        # A PIN has four digits; tokens are counted, in whatever number.
        return plain.isdecimal() and len(plain) >= _LONG_NUMBER and not name.endswith("tokens")
    return True


def looks_random(value: str) -> bool:
    """Tell whether a value looks as if a machine had made it up: no path, no words, no number."""
    value = value[:4096].strip("\"' ")
    if len(value) < _LEAST_RANDOM or any(map(str.isspace, value)):
        return False
    longest = max(re.findall(r"[A-Za-z0-9]+", value), key=len, default="")
    digits = sum(map(str.isdecimal, longest))
    letters = len(longest) - digits
    if len(longest) >= _LONG_HEX and re.fullmatch(r"[0-9a-fA-F]+", longest):
        return letters > 0
    return len(longest) >= _LEAST_RANDOM and min(digits, letters) >= _FEW_DIGITS
