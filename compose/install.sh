#!/bin/sh
# Installs servingrepo into an image that is being built: a virtual environment in /opt/servingrepo.
#
# usage: install.sh dependencies [--libraries]    what servingrepo needs, and what builds it
#        install.sh servingrepo                   servingrepo itself, from the source beside pyproject.toml
#
# Exactly the files are installed whose hashes requirements/ has, wherever they come from. Of TensorFlow only the
# generated message modules are kept, and with --libraries what the embedded server loads: see
# tensorflow_parts.py.
#
# Three things in a folder `prepared` of the build context change where packages come from; README.md says more:
#   prepared/ca.pem      the authorities that sign the index's certificate, instead of pip's own
#   prepared/wheels      the packages: no index is asked. Made with the image's Python, on a machine with a network:
#                          pip download --no-deps --require-hashes --dest prepared/wheels -r requirements/image.txt \
#                            -r requirements/build.txt -r requirements/tensorflow.txt
#   prepared/tensorflow  the parts of TensorFlow, as tensorflow_parts.py copies them out of a wheel or an
#                          installation. A base image may also have them already, in /opt/tensorflow.
set -eu

source=/build
target=/opt/servingrepo
builder=/opt/build
locks=$source/requirements

pip() {
  python=$1/bin/python
  shift
  "$python" -m pip --quiet --no-cache-dir --disable-pip-version-check "$@"
}

if [ -f "$source/prepared/ca.pem" ]; then
  export PIP_CERT="$source/prepared/ca.pem"
fi
if [ -d "$source/prepared/wheels" ]; then
  export PIP_NO_INDEX=1 PIP_FIND_LINKS="$source/prepared/wheels"
fi

case $1 in
dependencies)
  libraries=${2:-}
  python3 -m venv "$target"
  packages=$("$target/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # Without dependencies, because tensorflow-serving-api requires all of TensorFlow; the lock has the others.
  pip "$target" install --no-deps --require-hashes -r "$locks/image.txt"
  if [ -d /opt/tensorflow/tensorflow ]; then
    echo /opt/tensorflow >"$packages/tensorflow.pth"
  elif [ -d "$source/prepared/tensorflow" ]; then
    # shellcheck disable=SC2086 # empty means no argument
    "$target/bin/python" "$source/tensorflow_parts.py" $libraries "$source/prepared/tensorflow" "$packages"
  else
    pip "$target" download --no-deps --require-hashes --dest /tmp/tensorflow -r "$locks/tensorflow.txt"
    # shellcheck disable=SC2086
    "$target/bin/python" "$source/tensorflow_parts.py" $libraries /tmp/tensorflow/*.whl "$packages"
    rm -r /tmp/tensorflow
  fi
  python3 -m venv "$builder"
  pip "$builder" install --require-hashes -r "$locks/build.txt"
  ;;
servingrepo)
  pip "$builder" wheel --no-deps --no-build-isolation --no-index --wheel-dir /tmp/wheel "$source"
  pip "$target" install --no-deps --no-index /tmp/wheel/*.whl
  # Nothing is installed in the finished image.
  pip "$target" uninstall --yes pip setuptools 2>/dev/null || true
  ;;
esac
