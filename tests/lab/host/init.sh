#!/bin/bash
# Process 1 of a hypervisor host of the lab: private mounts, then virtlogd and libvirtd. Arguments: name, directory.
# It is started in new network, mount, PID, UTS and IPC namespaces; whatever it starts ends with it.
set -eu
name=$1 dir=$2
PATH=/usr/sbin:/usr/bin:/sbin:/bin
# /proc is still that of the machine: this is the pid by which the machine knows this shell.
read -r self _ </proc/self/stat
echo "$self" >"$dir/init.pid"
hostname "$name"

mkdir -p /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /etc/libvirt
for place in run:/run/libvirt etc:/etc/libvirt lib:/var/lib/libvirt log:/var/log/libvirt cache:/var/cache/libvirt lock:/run/lock; do
	mount --bind "$dir/${place%%:*}" "${place#*:}"
done
# What may hold a secret of a running domain lives in memory: state, master keys, firmware variables, and the seeds of hostd.
mkdir -p /run/libvirt/qemu /var/lib/libvirt/qemu /run/dejima
mount -t tmpfs -o mode=755 memory /run/libvirt/qemu
mount -t tmpfs -o mode=755 memory /var/lib/libvirt/qemu
mount -t tmpfs -o mode=755 memory /run/dejima
mount -t proc proc /proc

# A /dev without kvm. The old one goes first: libvirt moves every mount below /dev and trips over hidden ones.
mount -t tmpfs -o mode=755,size=1m dev "$dir/dev"
cd "$dir/dev"
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "${node%:*}" c 1 "${node#*:}"; done
mknod -m 666 tty c 5 0
mknod -m 666 ptmx c 5 2
mkdir net pts shm
mknod -m 666 net/tun c 10 200
for loop in /dev/loop-control /dev/loop[0-9]*; do
	if [ -e "$loop" ]; then cp -a "$loop" .; fi
done
ln -s /proc/self/fd fd
ln -s fd/0 stdin
ln -s fd/1 stdout
ln -s fd/2 stderr
mount --bind /dev/pts pts
mount -t tmpfs -o mode=1777 shm shm
cd /
umount -R -l /dev
mount --move "$dir/dev" /dev

ip link set lo up
# Bridged frames are judged by the bridge family alone.
for switch in /proc/sys/net/bridge/bridge-nf-call-*; do
	if [ -e "$switch" ]; then echo 0 >"$switch"; fi
done

virtlogd -d -p /run/libvirt/virtlogd.pid
libvirtd -d -p /run/libvirt/libvirtd.pid
# Process 1 inherits what loses its parent, and waits for it.
while :; do
	sleep 1000 &
	wait $! || true
done
