# A service such as an agent manages: it reads its configuration when it starts and on HUP, says in one file what it runs
# with, and keeps in another what it has read. `die` in a configuration ends it; one with `deaf` it does not take over.
# Usage: sh reloading_service.sh CONFIGURATION SAID
configuration=$1
said=$2
load() {
    text=$(cat "$configuration" 2>/dev/null)
    echo "$1 $text" >>"$said.log"
    case $text in
    *die*) exit 3 ;;
    *deaf*) ;;
    *) cat "$configuration" >"$said.part" 2>/dev/null; mv "$said.part" "$said" ;;
    esac
}
trap 'load reload' HUP
load start
while :; do
    sleep 1 &
    wait $!
done
