#!/bin/bash
# Healthy when TensorFlow Serving has every version that models.config pins.
#
# Runs inside the server's container and needs bash alone: the official image has neither curl nor Python.
# For each model of the config file it asks the REST port for the model's status. A model that pins versions
# (`specific`) needs each of them AVAILABLE; one with another policy needs one version AVAILABLE. Versions that
# the server has beyond those do not matter: while a switch is under way there are some. A server opens its
# ports only after its first models are loaded, so one that is still loading is not healthy either.
#
# Exit 0: healthy. Exit 1: not, and one line on standard output says why (docker inspect shows it).
#
#   MODEL_CONFIG_FILE  the config as the server reads it (default /models/models.config)
#   REST_PORT          the server's --rest_api_port (default 8501)
#   REST_SECONDS       how long one answer may take (default 3)
set -u
LC_ALL=C # bytes, not characters: the config may hold any

CONFIG=${MODEL_CONFIG_FILE:-/models/models.config}
PORT=${REST_PORT:-8501}
SECONDS_PER_ANSWER=${REST_SECONDS:-3}

unhealthy() {
  printf '%s\n' "$*"
  exit 1
}

# --- what the config pins ---------------------------------------------------------------------------------------
# Protobuf text format, read token by token: fields may stand on one line or many, in { } or < >, and lists in
# [ ]. `names` and `pins` get one item per model; a pin list is `any`, or numbers with spaces between.

names=() pins=()
fields=() # the messages that are open, outermost first
field='' name='' pinned=any

open_message() {
  fields+=("$field")
  case "${fields[*]}" in
  "model_config_list config") name='' pinned=any ;;
  "model_config_list config model_version_policy specific") pinned='' ;;
  esac
  field=''
}

close_message() {
  [ ${#fields[@]} -gt 0 ] || unhealthy "$CONFIG: a closing bracket too many"
  if [ "${fields[*]}" = "model_config_list config" ]; then
    names+=("$name") pins+=("$pinned")
  fi
  # In a list of messages the next one has the same name.
  field=${fields[-1]}
  unset 'fields[-1]'
}

value() {
  case "${fields[*]} $field" in
  "model_config_list config name") name+=$1 ;; # adjacent strings are one
  "model_config_list config model_version_policy specific versions")
    [[ $1 =~ ^-?([1-9][0-9]*|0|0[xX][0-9a-fA-F]+)$ ]] || unhealthy "$CONFIG: no number of a version: $1"
    pinned+=" $(($1))" # hexadecimal too
    ;;
  esac
}

read_line() {
  local rest=$1
  while :; do
    rest=${rest#"${rest%%[![:space:]]*}"}
    case $rest in
    '' | '#'*) return ;;
    '{'* | '<'*) open_message && rest=${rest:1} ;;
    '}'* | '>'*) close_message && rest=${rest:1} ;;
    [\[\],\;:]*) rest=${rest:1} ;;
    [\"\']*)
      local quote=${rest:0:1} text
      text=${rest:1}
      [[ $text == *"$quote"* ]] || unhealthy "$CONFIG: a string without an end: $rest"
      text=${text%%"$quote"*}
      [[ $text != *\\* ]] || unhealthy "$CONFIG: this check does not read strings with a backslash: $text"
      value "$text"
      rest=${rest:${#text}+2}
      ;;
    [-+0-9]*)
      local number=${rest%%[!-+0-9a-fA-FxX.]*}
      value "$number"
      rest=${rest:${#number}}
      ;;
    [A-Za-z_]*)
      field=${rest%%[!A-Za-z0-9_]*}
      rest=${rest:${#field}}
      ;;
    *) unhealthy "$CONFIG: cannot be read here: $rest" ;;
    esac
  done
}

# An enum's or a bool's value looks like a field's name and is taken for one; the next name replaces it.
[ -r "$CONFIG" ] || unhealthy "$CONFIG: cannot be read"
while IFS= read -r line || [ -n "$line" ]; do
  read_line "$line"
done <"$CONFIG"
[ ${#fields[@]} = 0 ] || unhealthy "$CONFIG: a closing bracket is missing"

# --- what the server has ----------------------------------------------------------------------------------------

# Sets `answer` to the whole HTTP answer to GET $1.
get() {
  answer=''
  { exec 3<>"/dev/tcp/127.0.0.1/$PORT"; } 2>/dev/null || unhealthy "no answer on port $PORT: models may be loading"
  printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
  local line
  while IFS= read -r -t "$SECONDS_PER_ANSWER" line <&3 || [ -n "$line" ]; do
    answer+=$line
  done
  exec 3>&-
  [ -n "$answer" ] || unhealthy "port $PORT did not answer GET $1 within $SECONDS_PER_ANSWER s"
}

# Sets `state` to the state of version $1 in `answer`; to nothing if the server does not know the version.
state_of() {
  local pattern="\"version\"$COLON\"$1\"[[:space:]]*,[[:space:]]*\"state\"$COLON\"([A-Z]+)\""
  state=''
  [[ $answer =~ $pattern ]] && state=${BASH_REMATCH[1]}
}

COLON='[[:space:]]*:[[:space:]]*'
AVAILABLE="\"state\"$COLON\"AVAILABLE\""
missing=()
for index in "${!names[@]}"; do
  name=${names[index]} pinned=${pins[index]}
  [[ $name =~ ^[A-Za-z0-9_.-]+$ ]] || unhealthy "this check cannot ask for a model called '$name'"
  get "/v1/models/$name"
  if [ "$pinned" = any ]; then
    [[ $answer =~ $AVAILABLE ]] || missing+=("$name has no version AVAILABLE")
    continue
  fi
  # No versions in `specific` is a model of which nothing is served, so nothing is missing.
  for version in $pinned; do
    state_of "$version"
    [ "$state" = AVAILABLE ] || missing+=("$name@$version is ${state:-not loaded}")
  done
done
# A config without models asks nothing above; the server must be there all the same.
[ ${#names[@]} -gt 0 ] || get /v1/models

if [ ${#missing[@]} -gt 0 ]; then
  printf -v text '%s; ' "${missing[@]}"
  unhealthy "${text%; }"
fi
