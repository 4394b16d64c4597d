#!/bin/busybox sh
# The standard guest of `cargo xtask claims`: a Linux guest that boots, idles, waits for timers, computes, starts
# processes, sends packets to itself, and writes files and a disk. $work says how much of it: all, none after the boot,
# or endless, which mixes timers, computing and processes until the guest is killed.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
# $name and $work are on the kernel's command line.
say() { echo "$name: $*"; }
say "up, Linux $(uname -r), $(nproc) vCPUs, clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
for module in /modules/*; do insmod $module || say "FAILED: insmod $module"; done

if [ $work = endless ]; then
    say working
    while true; do
        for i in 1 2 3 4 5; do usleep 2000; done
        i=0
        while [ $i -lt 100 ]; do i=$((i + 1)); done
        seq 20 | sort -n | tail -1 > /dev/null
    done
fi
[ $work = all ] || { say done; poweroff -f; }
say idle
sleep 1
say timers
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do usleep 2000; done
say computing
i=0
while [ $i -lt 3000 ]; do i=$((i + 1)); done
say processes
for i in 1 2 3 4 5 6 7 8; do
    ls / > /dev/null
    seq 200 | sort -n | tail -1 > /dev/null
done
say network
ip link set lo up
ping -c 3 -i 0.1 -q 127.0.0.1 > /dev/null || say "FAILED: ping"
head -c 200000 /dev/zero > /tmp/sent
httpd -p 127.0.0.1:80 -h /tmp
wget -q -O /tmp/received http://127.0.0.1/sent || say "FAILED: wget"
cmp /tmp/sent /tmp/received || say "FAILED: wget received another file"
say files
for i in 1 2 3 4 5 6 7 8; do dd if=/dev/zero of=/tmp/file$i bs=4k count=50 2> /dev/null; done
say disk
dd if=/dev/zero of=/dev/vda bs=64k count=16 conv=fsync 2> /dev/null || say "FAILED: write to the disk"
dd if=/dev/vda of=/dev/null bs=4k count=64 2> /dev/null || say "FAILED: read the disk"
say done
poweroff -f
