# Sourced with a recipe and settings, after _environment.sh: trains. On a CPU the demo's recipes take two processes, which share
# its cores better than the threads of one, unless a setting names a trainer; a sweep's launcher and trainer stay as they were set.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"  # on shared CPU cores, threads that spin while they wait cost most of the time
given=" experiment=$* " how=
case "$given" in
  *" trainer="* | *" --multirun "* | *" -m "*) ;;
  *) case "${given##* experiment=}" in demo_*)
       [ -e /dev/nvidiactl ] || [ -e /dev/kfd ] || [ -e /dev/dxg ] || [ "$(uname)" = Darwin ] || how=trainer=ddp_cpu ;;
     esac ;;
esac
exec "$PYTHON" "$ROOT/scripts/train.py" experiment="$1" ${how:+"$how"} "${@:2}"
