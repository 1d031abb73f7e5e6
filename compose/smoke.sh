#!/bin/bash
# A TensorFlow Serving for smoke tests, which is there for promotions and ends by itself after the last one.
#
# Runs inside the server's container, and needs bash and flock alone. The server begins with a config of no models,
# and gets each staging copy by RPC (servingrepo promote --engine remote:…); it never reads the live models.config.
#
# A promotion keeps a shared lock on the models directory from the start of its container to the end, as
# docker-compose.yml says. The kernel frees it however the promotion ends: done, failed, Ctrl-C, killed. When nobody
# has had the lock for a while, nobody needs the server. Nothing is written to the directory.
#
#   MODEL_CONFIG_FILE  where to write the config of no models; the health check reads it too
#   SMOKE_WAIT         how many seconds to wait for the first promotion (60)
#   SMOKE_LINGER       how many seconds to stay for the next one, whose container may be starting (5)
#
# Exit 0: nobody needs it any more. Else as the server ended.
set -u

WAIT=${SMOKE_WAIT:-60}
LINGER=${SMOKE_LINGER:-5}
MODELS=/models

end() {
  trap - TERM INT
  kill "$server" 2>/dev/null
  wait "$server"
}

exec 9<"$MODELS" || exit 1
flock --shared --nonblock 9 || {
  echo "cannot lock $MODELS, so nothing would say when the smoke tests are over" >&2
  exit 1
}
flock --unlock 9

printf 'model_config_list {}\n' >"$MODEL_CONFIG_FILE" || exit 1
# Not the image's entrypoint: that names a model, too, and does not exec.
tensorflow_model_server --port=8500 --rest_api_port=8501 --model_config_file="$MODEL_CONFIG_FILE" \
  --max_num_load_retries=0 --num_load_threads=1 9<&- &
server=$!
trap 'end; exit 143' TERM INT

left=$WAIT
while kill -0 "$server" 2>/dev/null; do
  if flock --exclusive --nonblock 9; then
    flock --unlock 9
    left=$((left - 1))
  else
    left=$LINGER
  fi
  if [ "$left" -le 0 ]; then
    end
    exit 0
  fi
  sleep 1 9<&-
done
wait "$server"
