#!/usr/bin/env bash
# Every stage on this machine, from an archive to a prediction CSV.
#
#   launch/local.sh --archive FILE --data_dir DIR [--config FILE] [--labels FILE] [--fresh]
#
# Start it again after an interruption: finished shards and epochs are kept. --fresh trains new
# models instead of going on with those of the last run. PYTHON names the interpreter.
set -euo pipefail

PYTHON=${PYTHON:-python}
archive="" data_dir="" config="" labels="" fresh=""

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }

fail() {
  echo "error: local.sh: $1" >&2
  exit 2
}

while (($#)); do
  case "$1" in
    --archive | --data_dir | --config | --labels)
      (($# > 1)) || fail "$1 needs a value; see --help"
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    --fresh) fresh=1 && shift ;;
    -h | --help) usage && exit 0 ;;
    *) fail "unknown flag $1; see --help" ;;
  esac
done
[[ -n $archive ]] || fail "--archive is missing: a zip or folder of DICOM slices; see --help"
[[ -n $data_dir ]] || fail "--data_dir is missing: where everything is written; see --help"

config_flag=(${config:+--config "$config"})
labels_flag=(${labels:+--labels "$labels"})

stage() {
  printf '\n== %s\n' "$*" >&2
  "$PYTHON" -m launch.measure "$@"
}

stage beam_pipelines.extract_metadata --archive "$archive" --data_dir "$data_dir"
stage beam_pipelines.process_labels --archive "$archive" --data_dir "$data_dir" \
  "${labels_flag[@]}"
stage beam_pipelines.build_examples --archive "$archive" --data_dir "$data_dir" \
  "${config_flag[@]}"

# Ids of this data root's models, so that a second start goes on with the first one's training.
ids="$data_dir/launch_ids"
if [[ -n $fresh || ! -f $ids ]]; then
  now=$(date +%s)
  printf 'base_id=%s\nsequence_id=%s\n' "$now" "$((now + 1))" >"$ids.tmp"
  mv "$ids.tmp" "$ids"
fi
base_id=$(sed -n 's/^base_id=//p' "$ids")
sequence_id=$(sed -n 's/^sequence_id=//p' "$ids")

stage trainer.train_base --data_dir "$data_dir" --model_id "$base_id" "${config_flag[@]}"
stage beam_pipelines.extract_embeddings --data_dir "$data_dir" --model_id "$base_id"
stage beam_pipelines.build_sequences --data_dir "$data_dir" --model_id "$base_id" \
  "${config_flag[@]}"
stage trainer.train_sequence --data_dir "$data_dir" --base_model_id "$base_id" \
  --model_id "$sequence_id" "${config_flag[@]}"
stage trainer.evaluate --data_dir "$data_dir" --model_id "$sequence_id"
stage beam_pipelines.predict --data_dir "$data_dir" --model_id "$sequence_id"
