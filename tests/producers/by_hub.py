"""Run in the environment `packed`: TensorFlow Hub downloads a module from this machine. The argument is where."""

from __future__ import annotations

import os
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import tensorflow as tf
import tensorflow_hub


class Site(SimpleHTTPRequestHandler):
    """tfhub.dev's answer: the archive, whatever comes after the question mark (?tf-hub-format=compressed)."""

    def do_GET(self) -> None:
        self.path = self.path.partition("?")[0]
        super().do_GET()


def main(root: Path) -> None:
    module = tf.Module()
    module.factor = tf.Variable(2.0)
    spec = [tf.TensorSpec([None], tf.float32, name="x")]
    module.serve = tf.function(lambda x: {"y": module.factor * x}, input_signature=spec)
    tf.saved_model.save(module, str(root / "made"), signatures=module.serve)
    (root / "site").mkdir()
    with tarfile.open(root / "site/half.tar.gz", "w:gz") as archive:
        archive.add(root / "made", arcname=".")
    os.environ["TFHUB_CACHE_DIR"] = str(root / "cache")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(root / "site")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    loaded = tensorflow_hub.load(f"http://127.0.0.1:{server.server_port}/half.tar.gz")
    assert loaded.serve(tf.constant([3.0]))["y"].numpy().tolist() == [6.0]
    server.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
