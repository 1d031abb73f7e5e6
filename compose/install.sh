#!/bin/sh
# Installs servingrepo into an image that is being built: a virtual environment in /opt/servingrepo.
#
# usage: install.sh dependencies [--libraries]    what servingrepo needs, as pyproject.toml says
#        install.sh servingrepo                   servingrepo itself, from the source beside pyproject.toml
#
# Of TensorFlow only the generated message modules are kept, and with --libraries what the embedded server
# loads: see tensorflow_parts.py.
#
# With a network, everything comes from the package index. Without one, put a folder `prepared` into the build
# context: wheels in `prepared/wheels`, and the parts of TensorFlow in `prepared/tensorflow`. A base image may
# also have the parts already, in /opt/tensorflow. Tests build both images in this way.
set -eu

source=/build
target=/opt/servingrepo
python=$target/bin/python

pip() {
  "$python" -m pip --quiet --no-cache-dir --disable-pip-version-check "$@"
}

if [ -d "$source/prepared/wheels" ]; then
  export PIP_NO_INDEX=1 PIP_FIND_LINKS="$source/prepared/wheels"
fi

case $1 in
dependencies)
  libraries=${2:-}
  python3 -m venv "$target"
  packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # tensorflow-serving-api requires all of TensorFlow, so these two are left out here and handled below.
  "$python" -c '
import tomllib
project = tomllib.load(open("/build/pyproject.toml", "rb"))["project"]
print(*(one for one in project["dependencies"] if not one.startswith("tensorflow")), sep="\n")
' >/tmp/requirements.txt
  pip install -r /tmp/requirements.txt
  pip install --no-deps "$("$python" -c '
import tomllib
project = tomllib.load(open("/build/pyproject.toml", "rb"))["project"]
print(*(one for one in project["dependencies"] if one.startswith("tensorflow-serving-api")))
')"
  if [ -d /opt/tensorflow/tensorflow ]; then
    echo /opt/tensorflow >"$packages/tensorflow.pth"
  elif [ -d "$source/prepared/tensorflow" ]; then
    # shellcheck disable=SC2086 # empty means no argument
    "$python" "$source/tensorflow_parts.py" $libraries "$source/prepared/tensorflow" "$packages"
  else
    version=$("$python" -c 'import importlib.metadata as m; print(m.version("tensorflow-serving-api"))')
    pip download --no-deps --dest /tmp/tensorflow "tensorflow==$version"
    # shellcheck disable=SC2086
    "$python" "$source/tensorflow_parts.py" $libraries /tmp/tensorflow/*.whl "$packages"
    rm -r /tmp/tensorflow
  fi
  ;;
servingrepo)
  pip install --no-deps "$source"
  # Nothing is installed in the finished image.
  pip uninstall --yes pip setuptools 2>/dev/null || true
  ;;
esac
