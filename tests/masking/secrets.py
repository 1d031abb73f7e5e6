"""Secrets in the shapes that people and services give them, all made up, and what only looks like one.

Each value is put together from parts, so that no scanner of secrets takes this file for a leak.
"""

from __future__ import annotations

import base64
from typing import NamedTuple

HEX = "0b5c7e1f9a3d4826"
MIXED = "q7Rk2LmX9vTzB4nWd8Yp"
PASSWORD = "hunter-2-Ur"  # noqa: S105 - made up, as all here


class Secret(NamedTuple):
    """A text, and what of it nobody may read."""

    text: str
    hidden: str


def token(*parts: str) -> Secret:
    return Secret("".join(parts), parts[-1])


def around(before: str, hidden: str, after: str = "") -> Secret:
    return Secret(before + hidden + after, hidden)


NAMED = (
    *("pass", "pw", "pwd", "pat", "passcode", "passphrase", "password", "passwd", "db_password"),
    *("creds", "credentials", "tokens", "token", "hub_token", "authToken", "secret"),
    *("client_secret", "accountKey", "storage_key", "sshkey", "apiKey", "API_KEY", "wandb/key"),
    *("aws_secret_access_key", "private_key", "signing-key", "auth", "authorization", "cookie"),
    *("sentry_dsn", "connection_string", "sas_token", "userPwd", "PGPASSWORD", "jwt"),
    *("webhook_url", "mysqlpass", "X-Api-Key"),
)
"""Names of settings: the value is a secret whatever it looks like."""

TOKENS = (
    token("ghp", "_", MIXED + "abcdefghij012345"),
    token("github", "_pat_", "11ABCDEFG0" + MIXED + "_" + MIXED),
    token("glpat", "-", MIXED),
    token("xoxb", "-", "123456789012-" + MIXED),
    token("hf", "_", "abcdefghijKLMNOPQRSTuvwxyzABCDEFGH"),
    token("sk", "-proj-", MIXED * 2),
    token("sk", "-ant-api03-", MIXED * 2),
    token("sk", "_live_", MIXED),
    token("rk", "_test_", MIXED),
    token("AK", "IA", "Q7RK2LMX9VTZB4NW"),
    token("AI", "za", MIXED + MIXED[:15]),
    token("ya", "29.", MIXED + MIXED),
    token("GOC", "SPX-", MIXED + "abcdefgh"),
    token("npm", "_", MIXED + MIXED[:16]),
    token("pypi", "-", "AgEIcHlwaS5vcmc" + MIXED * 3),
    token("dckr", "_pat_", MIXED + "abcdefg"),
    token("dop", "_v1_", HEX * 4),
    token("da", "pi", HEX * 2),
    token("SG", ".", MIXED + "ab." + MIXED * 2 + "abc"),
    token("key", "-", HEX * 2),
    token("SK", HEX * 2),
    token("shp", "at_", HEX * 2),
    token("gsk", "_", MIXED * 2 + "abcdefghijkl"),
    token("hvs", ".", MIXED * 4),
    token("AGE-SECRET", "-KEY-1", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE"),
    token("nv", "api-", MIXED * 3),
    token("123456789", ":AA", MIXED + MIXED[:15]),
    token("ey", "J" + "hbGciOiJIUzI1NiJ9.", "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + MIXED * 2),
    token("$2", "b$12$", "EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW"),
    around("-----BEGIN RSA PRIVATE KEY-----\n", MIXED * 3, "\n-----END RSA PRIVATE KEY-----\n"),
    around("-----BEGIN OPENSSH PRIVATE KEY-----\n", MIXED * 3),
)
"""What is known by its looks, wherever it stands."""

URLS = (
    around("https://hooks.slack." + "com/services/", "T00000000/B00000000/" + MIXED),
    around("https://discord.com/api/web" + "hooks/", "123456789012345678/" + MIXED),
    around("postgres://me:", PASSWORD, "@db:5432/runs"),
    around("mysql://me:", "a/b" + PASSWORD, "@db/runs"),
    around("mongodb+srv://me:", "p@ss" + PASSWORD, "@cluster0.example/runs"),
    around("https://", MIXED, "@github.com/a/b"),
    around("https://blob.example/c?sv=2024&sig=", MIXED + "%3D", "&se=2030"),
    around("https://api.example/v1?key=", PASSWORD, "&page=2"),
    around("https://x.example/#access_token=", PASSWORD),
)

TEXTS = (
    around("Server=db;Uid=me;Pwd=", PASSWORD, ";Database=runs"),
    around("AccountName=a;AccountKey=", MIXED * 4 + "==", ";EndpointSuffix=core.windows.net"),
    around("machine api.wandb.ai login user password ", HEX * 2 + HEX[:8]),
    around("machine example.org\n  login me\n  password ", PASSWORD),
    around("host=db user=me password=", PASSWORD, " dbname=runs"),
    around("train.py --db-password ", PASSWORD, " --lr 0.1"),
    around('train.py --db-password="', "two words " + PASSWORD, '" --lr 0.1'),
    around("python -m x -password ", PASSWORD),
    around("curl -u me:", PASSWORD, " https://x.example"),
    around("curl --user 'me:", PASSWORD + " and more", "' https://x.example"),
    around("curl -H 'Authorization: Bearer ", PASSWORD, "' https://x.example"),
    around('curl -H "X-Vault-Token: ', PASSWORD, '" https://x.example'),
    around("curl -H 'Cookie: session=1; id=", PASSWORD, "' https://x.example"),
    around("Authorization: Basic ", base64.b64encode(f"me:{PASSWORD}".encode()).decode()),
    around("Bearer ", MIXED),
    around("sshpass -p ", PASSWORD, " ssh me@host"),
    around("mysql -u me -p", PASSWORD, " runs"),
    around("docker login -u me -p ", PASSWORD, " registry.example"),
    around("wandb login ", HEX * 2 + HEX[:8]),
    around("API_KEY=", PASSWORD, " ./train.sh"),
    around("//registry.npmjs.org/:_authToken=", MIXED),
    around('{"lr": 0.1, "password": "', PASSWORD, '"}'),
    around(r"{\"lr\": 0.1, \"password\": \"", PASSWORD, r"\"}"),
    around("{'token': '", PASSWORD, "'}"),
    around("<server><password>", PASSWORD, "</password></server>"),
    around("password: |\n  ", PASSWORD),
    around("--server-arg --api_token=", PASSWORD),
    around("--header x-anything=", PASSWORD),
    around('["--db-password", "', PASSWORD, '"]'),
)
"""What is known by the words around it."""

COMMANDS = tuple(one for one in (*TOKENS, *URLS, *TEXTS) if "\n" not in one.text)

HARMLESS = (
    *(("learning_rate", "0.001"), ("tokenizer", "bert-base-uncased"), ("max_tokens", "512")),
    *(("passes", "3"), ("num_keys", "64"), ("keys", "3"), ("key_dim", "32")),
    *(("attention_key", "head_0"), ("author", "me"), ("bypass", "true"), ("compass", "north")),
    *(("path", "/data/runs/17"), ("pattern", "*.csv")),
    *(("commit", "0b5c7e1f9a3d48260b5c7e1f9a3d48260b5c7e1f"), ("sha256", HEX * 4)),
    *(("digest", f"blake3:{HEX * 4}"), ("run_id", HEX * 2)),
    *(("uuid", "550e8400-e29b-41d4-a716-446655440000"), ("pad_token", "<pad>")),
    *(("eos_token", "</s>"), ("token_type_ids", "true"), ("num_tokens", "1e9")),
    *(("tokens_seen", "300B"), ("secretary", "Ada"), ("primary_key", "user_id")),
    *(("cache_key", "train-v2"), ("forward_pass", "fp16"), ("low_pass", "0.1")),
    *(("patience", "5"), ("patch_size", "16"), ("signature", "serving_default")),
    *(("monkey", "see"), ("keyword", "sale"), ("keyboard", "qwerty"), ("optimizer", "adam")),
    *(("note", "a basic implementation of the paper"), ("use_auth_token", "false")),
    ("url", "https://host:8080/a@b?page=3"),
    *(("url", "s3://bucket/token-data/part-0001.parquet"), ("data", "gs://bucket/x?alt=media")),
    *(("image", "tensorflow/serving:2.19.1"), ("endpoint", "10.0.0.1:8500")),
    *(("model", "mask-rcnn-resnet50-fpn-v2-coco"), ("task", "task_test_classification")),
    *(("time", "12:30:45"), ("message", "fix auth: retry on 401")),
    *(("message", "tokens: 512, passes: 3"), ("schedule", "cosine")),
    *(("command", "train.py --learning-rate 0.1 --max-tokens 512"), ("user", "1000:1000")),
    *(("command", "docker run -u 1000:1000 -p 8500:8500 image"), ("window", "-5:+5")),
    ("range", "a=1,b=2"),
)
