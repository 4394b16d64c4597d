# Run by `cargo xtask demo`, in the lab or on a host: checks, records guests with known exits, and reports. Results go
# to $OUT.
set -e
echo "\$ vmentry check"
vmentry check

cat > $OUT/guests.sh <<'END'
set -e
vmentry exercise tsc-deadline --count 23
vmentry exercise cpuid --count 97
vmentry exercise immediate --count 7
vmentry exercise hlt --count 9
vmentry exercise out --count 31
END
echo
echo "\$ vmentry record -o recording.hlog -- sh guests.sh"
vmentry record --overwrite -o $OUT/recording.hlog --label demo -- sh $OUT/guests.sh
rm $OUT/guests.sh

echo
echo "\$ vmentry report recording.hlog"
vmentry report $OUT/recording.hlog
vmentry report $OUT/recording.hlog --format json > $OUT/report.json
