#!/bin/sh
# Rotates API_KEY of the secret app, ROTATIONS times, while four clients ask without a pause. Ends with 1 if a request failed.
url=http://127.0.0.1:${PORT:-8000}/
dir=$(mktemp -d) || exit
trap 'rm -rf "$dir"' EXIT

client() {
	until [ -e "$dir/stop" ]; do
		if curl -fsS --max-time 60 -o "$dir/answer.$1" "$url" 2>>"$dir/errors"; then echo ok; else echo failed; fi >>"$dir/asked.$1"
	done
}
for i in 1 2 3 4; do client $i & done

process=$(curl -fsS "$url")
for i in $(seq "${ROTATIONS:-3}"); do
	vaultexec rotate app API_KEY >/dev/null || break
	until next=$(curl -fsS "$url") && [ "$next" != "$process" ]; do sleep 0.1; done
	echo "rotation $i: $process, then $next"
	process=$next
done
: >"$dir/stop"
wait
failed=$(cat "$dir"/asked.* | grep -c failed)
echo "$(cat "$dir"/asked.* | wc -l) requests, $failed failed"
sort "$dir/errors" | uniq -c
[ "$failed" -eq 0 ]
