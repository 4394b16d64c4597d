# Runs `vmentry ab` on a running Linux guest of QEMU: soft against hard, where it must find the guest's pin writes within the
# rounds that it promises; soft against soft at five seeds, of which at most one may find any change; and one in the middle of
# which the guest ends. Leaves results in $OUT. $GUESTS and $QEMU are those of claims.sh.
policy=/sys/module/kvm_intel/parameters/preemption_timer_policy
# On one CPU, a guest that computes would delay the ends of the windows, so it gets a low weight.
cgroup=/sys/fs/cgroup/guest
mount -t cgroup2 none /sys/fs/cgroup
echo +cpu > /sys/fs/cgroup/cgroup.subtree_control
mkdir $cgroup
echo 1 > $cgroup/cpu.weight

start="echo \$\$ > $cgroup/cgroup.procs; exec $QEMU -accel kvm -cpu host -M microvm,rtc=off,pic=off,pit=off -m 300 -smp 1 \
    -nodefaults -no-user-config -display none -name guest=standard,debug-threads=on \
    -chardev file,id=serial,path=$OUT/guest.console -serial chardev:serial \
    -kernel $GUESTS/vmlinux -initrd $GUESTS/standard.cpio -append '$parameters name=guest work=endless'"
sh -c "$start" < /dev/null &
guest=$!
echo "experiments on a Linux guest: booting"
until grep -q "guest: working" $OUT/guest.console 2> /dev/null; do
    kill -0 $guest
    sleep 1
done

# No statistics in here, where they would take long; they take seconds on a real CPU.
experiment() {
    name=$1
    shift
    echo "experiments on a Linux guest: $name"
    vmentry ab --window 150ms --washout 20ms --warmup 100ms --no-compare -o $OUT/$name.hlog "$@" 2> $OUT/$name.txt || {
        cat $OUT/$name.txt
        exit 1
    }
    cat $policy > $OUT/after-$name
}

experiment ab --seed 23
for seed in 97 98 99 100 101; do experiment aa-$seed --seed $seed --policies soft,soft --rounds 6; done
(
    until grep -q '"round":2' $OUT/ended.hlog 2> /dev/null; do sleep 0.1; done
    kill -9 $guest
) &
experiment ended --rounds 1000 --seed 7
wait || true
