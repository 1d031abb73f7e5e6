"""Secrets that are known by their shapes: tokens with a prefix, keys in PEM, passwords in URLs, webhooks.

The prefixes and lengths are facts about the services that give the tokens out, as detectors of secrets (gitleaks,
detect-secrets) know them. A text is searched for the prefixes as plain text, and only what follows one is matched, by
a single class of characters: so the time grows with the length of the text and no faster, whatever stands in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MASK", "Span", "mask_shapes", "replaced"]

MASK = "***"
Span = tuple[int, int, str]
"""A part of a text, by its begin and end, and the text to put in its place."""

_WORD = r"[\w-]"
_ALNUM = "[A-Za-z0-9]"
_HEX = "[0-9a-f]"
_DOTTED = r"[\w.=~+/-]"
_PATH = r"[\w./@+=%-]"


class _Shape(NamedTuple):
    """A token: how it begins, which characters follow, and how many at least.

    If `apart`, no letter or digit may stand before it: `mask-` ends in `sk-`, too. If `kept`, the text keeps its
    beginning, to say whose it is.
    """

    starts: tuple[str, ...]
    of: str
    least: int
    apart: bool = False
    kept: bool = False


_SHAPES = (
    # GitHub, GitLab, Bitbucket, Atlassian, Gitea's and other forges
    _Shape(("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), _ALNUM, 20),
    _Shape(("github_pat_",), _WORD, 20),
    _Shape(
        ("glpat-", "gldt-", "glcbt-", "glptt-", "glft-", "glrt-", "glimt-", "gloas-"),
        _DOTTED,
        16,
        apart=True,
    ),
    _Shape(("glsoat-", "glffct-", "glagent-", "GR1348941"), _WORD, 16, apart=True),
    _Shape(("ATATT3", "ATCTT3", "ATBB"), _DOTTED, 24, apart=True),
    # Slack
    _Shape(
        ("xoxa-", "xoxb-", "xoxe-", "xoxe.", "xoxo-", "xoxp-", "xoxr-", "xoxs-", "xoxc-", "xoxd-"),
        _DOTTED,
        10,
    ),
    _Shape(("xapp-",), _WORD, 16, apart=True),
    # Clouds
    _Shape(("AKIA", "ASIA", "ABIA", "ACCA", "A3T"), "[0-9A-Z]", 16, apart=True),
    _Shape(("ABSK", "bedrock-api-key-"), r"[A-Za-z0-9+/=]", 40, apart=True),
    _Shape(("AIza",), _WORD, 30, apart=True),
    _Shape(("ya29.", "GOCSPX-", "1//0"), _WORD, 20, apart=True),
    _Shape(("LTAI",), _ALNUM, 12, apart=True),
    _Shape(("dop_v1_", "doo_v1_", "dor_v1_"), _HEX, 32),
    _Shape(("fo1_", "fm1a_", "fm1r_", "fm2_"), r"[\w+/=-]", 40, apart=True),
    _Shape(("HRKU-",), _WORD, 30, apart=True),
    _Shape(("v1.0-",), "[0-9a-f-]", 100, apart=True),
    _Shape(("tskey-",), _WORD, 16, apart=True),
    # Machine learning
    _Shape(("hf_", "api_org_"), _ALNUM, 20, apart=True),
    _Shape(
        ("sk-proj-", "sk-svcacct-", "sk-admin-", "sk-ant-", "sk-or-", "sk-lf-"),
        _WORD,
        16,
        apart=True,
    ),
    _Shape(("sk-",), _ALNUM, 20, apart=True),
    _Shape(("gsk_", "r8_", "pplx-", "xai-", "rpa_"), _ALNUM, 24, apart=True),
    _Shape(("nvapi-", "tvly-"), _WORD, 20, apart=True),
    _Shape(("wandb_v1_", "lsv2_pt_", "lsv2_sk_", "pcsk_"), _WORD, 20, apart=True),
    _Shape(("dapi",), _HEX, 32, apart=True),
    # Registries of packages and images
    _Shape(("npm_",), _ALNUM, 30, apart=True),
    _Shape(("pypi-",), _WORD, 40, apart=True),
    _Shape(("rubygems_",), _HEX, 32, apart=True),
    _Shape(("dckr_pat_", "dckr_oat_"), _WORD, 20, apart=True),
    _Shape(("AKCp", "cmVmd"), _ALNUM, 50, apart=True),
    # Money
    _Shape(
        ("sk_live_", "sk_test_", "sk_prod_", "rk_live_", "rk_test_", "rk_prod_"),
        _ALNUM,
        10,
        apart=True,
    ),
    _Shape(("whsec_",), r"[A-Za-z0-9+/=]", 20, apart=True),
    _Shape(("sq0atp-", "sq0csp-", "EAAA"), _WORD, 22, apart=True),
    _Shape(("shpat_", "shpca_", "shppa_", "shpss_"), "[0-9A-Fa-f]", 32, apart=True),
    _Shape(("FLWSECK_TEST-", "FLWSECK-"), _WORD, 12, apart=True),
    # Mail, telephones, metrics, secrets of others
    _Shape(("SG.",), r"[\w.-]", 40, apart=True),
    _Shape(("xkeysib-",), _WORD, 40, apart=True),
    _Shape(("key-",), _HEX, 32, apart=True),
    _Shape(("SK",), _HEX, 32, apart=True),
    _Shape(("glc_", "glsa_", "sntrys_", "sntryu_"), r"[\w+/=-]", 30, apart=True),
    _Shape(("NRAK-", "NRII-", "dt0c01.", "dt0s16."), _DOTTED, 24, apart=True),
    _Shape(("hvs.", "hvb.", "hvr."), _WORD, 20, apart=True),
    _Shape(("ops_eyJ",), _DOTTED, 25, apart=True),
    _Shape(("A3-",), "[0-9A-Z-]", 30, apart=True),
    _Shape(("AGE-SECRET-KEY-1",), _ALNUM, 20),
    _Shape(("dp.pt.", "dp.st.", "dp.sa.", "dp.ct."), _DOTTED, 30, apart=True),
    _Shape(("pscale_tkn_", "pscale_pw_", "pscale_oauth_"), _DOTTED, 20, apart=True),
    _Shape(("lin_api_", "ntn_", "rdme_"), _ALNUM, 24, apart=True),
    _Shape(("PMAK-", "pul-", "sbp_"), "[0-9a-f-]", 32, apart=True),
    _Shape(("figd_", "sb_secret_"), _WORD, 20, apart=True),
    _Shape(("EZAK", "EZTK"), _ALNUM, 40, apart=True),
    _Shape(("sha256~",), _WORD, 40, apart=True),
    # Everybody who has the address may write there.
    _Shape(("hooks.slack.com/",), _PATH, 8, kept=True),
    _Shape(("discord.com/api/webhooks/", "discordapp.com/api/webhooks/"), _PATH, 8, kept=True),
    _Shape((".webhook.office.com/", "hooks.zapier.com/hooks/"), _PATH, 8, kept=True),
    _Shape(("api.telegram.org/bot",), r"[\w:-]", 20, kept=True),
    # Hashes of passwords, which are guessed at leisure
    _Shape(("$apr1$", "$2a$", "$2b$", "$2y$", "$5$", "$6$", "$y$", "$argon2"), r"[\w./$=,+-]", 20),
)

_MAY_BE = r"[\w-]{15}|\.\w|\$|//"
"""Every shape has something of this, and most texts have nothing."""

_JWT = r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*){0,3}|(?<![\w-])eyJ[\w-]{512,}"
_TELEGRAM = r"(?<![\w:])\d{8,10}:AA[\w-]{30,}"
_AZURE = r"(?<![\w~.-])[\w~.]{3}\dQ~[\w~.-]{30,}"
_MAILCHIMP = r"(?<![0-9a-f])[0-9a-f]{32}-us\d{1,2}(?!\d)"
_ODD = (("eyJ", _JWT), (":AA", _TELEGRAM), ("Q~", _AZURE), ("-us", _MAILCHIMP))
"""Secrets that need more than a beginning to be known: a text that all of them have, and their pattern."""


def mask_shapes(text: str) -> str:
    """Return a text without what looks like a secret."""
    if "-----BEGIN" in text or "PuTTY-User-Key-File-" in text:
        text = replaced(text, _keys(text))
    if "://" in text:
        text = replaced(text, _passwords(text))
    for shape in _SHAPES if re.search(_MAY_BE, text) else ():
        for start in shape.starts:
            if start in text:
                text = replaced(text, _tokens(text, start, shape))
    for part, pattern in _ODD:
        if part in text:
            text = re.sub(pattern, MASK, text)
    return text


def replaced(text: str, spans: Iterable[Span]) -> str:
    """Return a text with spans replaced, which come in their order."""
    pieces: list[str] = []
    done = 0
    for begin, end, instead in spans:
        pieces += [text[done:begin], instead]
        done = end
    return "".join([*pieces, text[done:]])


def _tokens(text: str, start: str, shape: _Shape) -> Iterator[Span]:
    pattern = re.compile(f"{shape.of}{{{shape.least},}}")
    at = 0
    while (begin := text.find(start, at)) >= 0:
        at = begin + len(start)
        if shape.apart and begin > 0 and text[begin - 1].isalnum():
            continue
        if (found := pattern.match(text, at)) is not None:
            yield at if shape.kept else begin, found.end(), MASK
            at = found.end()


_KEY_BEGINS = r"-----BEGIN (?:[A-Z0-9 ]{0,60}PRIVATE KEY|OPENVPN STATIC KEY)|PuTTY-User-Key-File-"
_KEY_ENDS = r"-----END [A-Z0-9 ]{0,60}KEY[A-Z0-9 ]{0,10}-----|Private-MAC: ?[0-9a-f]{0,128}"


def _keys(text: str) -> Iterator[Span]:
    """Yield private keys: from their first line to their last, or to the end of the text if that was cut off."""
    at = 0
    begin, end = re.compile(_KEY_BEGINS), re.compile(_KEY_ENDS)
    while (begins := begin.search(text, at)) is not None:
        ends = end.search(text, begins.end())
        at = ends.end() if ends is not None else len(text)
        yield begins.start(), at, MASK


_LONGEST_HOST = 512
_AUTHORITY = r"[^\s/?#\"'<>`]*"
_WITH_SLASHES = r"[^\s:/@\"']{0,128}:(?!\d{1,5}(?:[/?#\s\"']|$))[^\s@\"']{1,512}@"
"""USER:PASSWORD@ with a slash in the password, which should have been escaped: what follows is no port."""


def _passwords(text: str) -> Iterator[Span]:
    """Yield each USER:PASSWORD in a URL."""
    whole, with_slashes = re.compile(_AUTHORITY), re.compile(_WITH_SLASHES)
    at = 0
    while (at := text.find("://", at)) >= 0:
        at += 3
        authority = whole.match(text, at)
        end = authority.end() if authority is not None else at
        cut = text.rfind("@", at, end)
        if cut < 0 and end - at > _LONGEST_HOST:  # the rest of it was cut off, and the @ with it
            cut = end
        elif cut < 0 and (slashed := with_slashes.match(text, at)) is not None:
            cut = slashed.end() - 1
        if cut > at:
            yield at, cut, MASK
            at = cut
