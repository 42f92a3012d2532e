#!/bin/sh
# Process 1 of the lab's guest: a small machine that understands what a cloud image understands of a NoCloud seed.
#
# Seed: a disk or CD whose file system bears the label `cidata` (ISO 9660 or FAT).
#   meta-data       `local-hostname: NAME` names the machine
#   network-config  version 2, block YAML or JSON, one interface: `macaddress` (else eth0), `addresses`, `gateway4`,
#                   `routes` (`to`, then `via`), `mtu`
#   vendor-data     run in the background where it begins with `#!`; what it says is in /run/vendor-data.log
#   user-data       the same, after it; what it says is in /run/user-data.log
# Both scripts are run at every boot. Without a seed, `lab.ip=ADDRESS/LENGTH[,GATEWAY]` on the command line is obeyed.
# READY is printed on the console when network, scripts and agent have been started.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm /dev/virtio-ports /run /tmp /mnt /var/log /var/tmp
mount -t devpts pts /dev/pts
mount -t tmpfs -o mode=755 run /run
ln -sfn /run /var/run
exec </dev/console >/dev/console 2>&1

say() {
	read -r up _ </proc/uptime
	echo "lab: $up $*"
}
argument() {
	for word in $(cat /proc/cmdline); do
		case $word in "$1="*) echo "${word#*=}"; return 0 ;; esac
	done
	return 1
}
load() {
	while read -r module; do insmod "/lib/modules/$module" 2>/dev/null; done <"/lib/modules/lab/$1"
}

load boot
# A virtio SCSI host (device type 8) brings disks of its own.
if grep -qsx 0x0008 /sys/bus/virtio/devices/*/device; then load scsi; fi
ip link set lo up

seed=
find_seed() {
	for block in /sys/block/vd* /sys/block/sd* /sys/block/sr*; do
		[ -e "$block" ] || continue
		device=/dev/${block##*/}
		case $(blkid -p -s LABEL -o value "$device" 2>/dev/null) in
		cidata | CIDATA) seed=$device; return 0 ;;
		esac
	done
	return 1
}
# A SATA controller is there in every machine and slow to ask: a CD on it is looked for last.
find_cd() {
	load sata
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		find_seed && return 0
		usleep 100000
	done
	return 1
}
find_seed || [ -n "$(argument lab.ip)" ] || find_cd
if [ -n "$seed" ]; then
	mkdir -p /run/seed
	if mount -t "$(blkid -p -s TYPE -o value "$seed")" -o ro "$seed" /run/seed; then say "seed $seed"; else say "seed $seed cannot be mounted"; fi
fi

# The words of a file of the seed in their order, without the signs of YAML and JSON.
words() {
	[ ! -s "/run/seed/$1" ] || tr '",[]{}' '      ' <"/run/seed/$1" | sed 's/#.*//; s/:\( \|$\)/ /g; s/ :/ /g' | tr -s ' \t' '\n\n'
}
name=$(words meta-data | awk 'key == "local-hostname" { print; exit } { key = $1 }')
hostname "${name:-guest}"

if [ -s /run/seed/network-config ]; then
	words network-config | awk '
		/^(addresses|gateway4|to|via|mtu|macaddress|nameservers|routes)$/ { key = $1; next }
		$1 == "-" || $1 == "" { next }
		key == "addresses" && /\// { print "address", $1; next }
		key == "gateway4" { print "route", "default", $1; key = ""; next }
		key == "to" { to = ($1 == "0.0.0.0/0") ? "default" : $1; key = ""; next }
		key == "via" { print "route", to, $1; key = ""; next }
		key == "mtu" || key == "macaddress" { print key, tolower($1); key = "" }
	' >/run/network
elif static=$(argument lab.ip); then
	echo "address ${static%%,*}" >/run/network
	case $static in *,*) echo "route default ${static#*,}" >>/run/network ;; esac
fi
link=eth0
if wanted=$(sed -n 's/^macaddress //p' /run/network 2>/dev/null) && [ -n "$wanted" ]; then
	for net in /sys/class/net/*; do
		[ "$(cat "$net/address")" = "$wanted" ] && link=${net##*/}
	done
fi
for net in /sys/class/net/*; do
	[ "${net##*/}" = lo ] || ip link set "${net##*/}" up
done
if [ -s /run/network ]; then
	for what in mtu address route; do
		while read -r kind first second; do
			case $what/$kind in
			mtu/mtu) ip link set "$link" mtu "$first" ;;
			address/address) ip addr add "$first" dev "$link" ;;
			route/route) ip route add "$first" via "$second" dev "$link" ;;
			esac
		done </run/network
	done
	say "network $link $(ip -4 -o addr show dev "$link" 2>/dev/null | awk '{print $4}')"
fi

for part in vendor-data user-data; do
	case $(head -c 2 "/run/seed/$part" 2>/dev/null) in
	'#!')
		# A copy: the seed may be taken away. The script decides its own shell, as on any machine.
		cp "/run/seed/$part" "/run/$part"
		chmod 700 "/run/$part"
		setsid "/run/$part" </dev/null >"/run/$part.log" 2>&1 &
		say "$part started"
		;;
	'') ;;
	*) say "$part is no script: left alone" ;;
	esac
done

# The host's power button.
if [ -e /dev/input/event0 ]; then acpid -l /run/acpid.log; fi

# The agent's port may be plugged in later.
agent() {
	for port in /sys/class/virtio-ports/*; do
		[ -e "$port/name" ] || continue
		ln -sfn "/dev/${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
	done
	[ -e /dev/virtio-ports/org.qemu.guest_agent.0 ] && qemu-ga -d -l /run/agent.log -t /run -f /run/agent.pid
}
if agent; then
	say agent
else
	while ! agent; do sleep 1; done &
fi

# busybox tells process 1 by a signal what is wanted.
trap 'exec /sbin/reboot' TERM
trap 'exec /sbin/poweroff' USR1 USR2

say READY
while :; do
	setsid cttyhack sh </dev/console >/dev/console 2>&1 &
	wait $!
	sleep 1
done
