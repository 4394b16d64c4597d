#!/bin/busybox sh
# The nested guest of `cargo xtask claims`: an L1 hypervisor, which is Linux with KVM, and its L2 guests.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
# $name is on the kernel's command line.
say() { echo "$name: $*"; }
say "up, Linux $(uname -r)"
for module in /modules/*; do insmod $module || say "FAILED: insmod $module"; done
say "kvm_intel loaded in L1, its preemption timer $(cat /sys/module/kvm_intel/parameters/preemption_timer)"
for l2 in 'tsc-deadline --count 101' 'cpuid --count 211' 'hlt --count 37'; do
    say "L2: vmentry exercise $l2"
    vmentry exercise $l2 > /dev/null || say "FAILED: vmentry exercise $l2"
done
say done
poweroff -f
