//! The machine: its hardware clock, its disk, its kernel.

use crate::clock;
use shared::finding::Finding;
use std::fs;

/// Seconds that the hardware clock may be off.
const RTC_OFF: u64 = 60;
/// The kernel that first gave what supervision of processes needs (`pidfd_open`).
const KERNEL: (u32, u32) = (5, 3);

/// The battery-backed clock, which says what time it is after a power loss.
pub(super) fn rtc() -> Finding {
    let read = fs::read_to_string("/sys/class/rtc/rtc0/since_epoch");
    let seconds = read.ok().and_then(|text| text.trim().parse::<u64>().ok());
    judge_rtc(seconds, (clock::now().wall.0 / 1000).max(0) as u64)
}

fn judge_rtc(rtc: Option<u64>, wall: u64) -> Finding {
    const NAME: &str = "rtc";
    match rtc {
        None => Finding::warning(
            NAME,
            "there is no hardware clock",
            "after a power loss the clock is wrong until NTP or the coordinator was heard; \
             schedules say so",
        ),
        Some(rtc) if rtc.abs_diff(wall) > RTC_OFF => Finding::warning(
            NAME,
            format!("the hardware clock is {} s off", rtc.abs_diff(wall)),
            "write the time to it (`hwclock --systohc`), and change its battery if it stays off",
        ),
        Some(_) => Finding::ok(NAME, "the hardware clock shows the same time"),
    }
}

/// Version and features.
pub(super) fn kernel() -> Vec<Finding> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let own = rustix::process::getpid();
    let pidfd = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).is_ok();
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").ok();
    let pressure = fs::read_to_string("/proc/pressure/memory").is_ok();
    vec![
        judge_kernel(&release, pidfd),
        match controllers {
            Some(list) if list.contains("memory") => {
                Finding::ok("cgroups", format!("version 2 with {}", list.trim()))
            }
            // Limits around the service, as `MemoryMax=` of the unit; the agent itself sets none.
            _ => Finding::ok(
                "cgroups",
                "no version 2 with the memory controller: limits of the unit may not hold",
            ),
        },
        if pressure {
            Finding::ok("pressure", "pressure stall information is there")
        } else {
            Finding::warning(
                "pressure",
                "the kernel gives no pressure stall information",
                "boot with psi=1 (CONFIG_PSI); new work is not held back under pressure without",
            )
        },
    ]
}

fn judge_kernel(release: &str, pidfd: bool) -> Finding {
    const NAME: &str = "kernel";
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    if version >= KERNEL && pidfd {
        return Finding::ok(NAME, format!("{release} with pidfd"));
    }
    let text = match pidfd {
        true => format!("{release} is older than {}.{}", KERNEL.0, KERNEL.1),
        false => format!("{release} without pidfd_open"),
    };
    let mend = "update the kernel, or the filter of system calls around the agent";
    Finding::warning(NAME, text, mend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::finding::Judgement;

    #[test]
    fn kernels_and_hardware_clocks_are_judged() {
        assert_eq!(judge_kernel("6.1.0-18-arm64", true).state, Judgement::Ok);
        assert_eq!(judge_kernel("5.3.0", true).state, Judgement::Ok);
        assert_eq!(judge_kernel("4.19.0", true).state, Judgement::Warning);
        assert_eq!(judge_kernel("6.1.0", false).state, Judgement::Warning);
        assert_eq!(judge_kernel("odd", true).state, Judgement::Warning);
        assert_eq!(judge_rtc(None, 5).state, Judgement::Warning);
        assert_eq!(judge_rtc(Some(0), 1_800_000_000).state, Judgement::Warning);
        assert_eq!(
            judge_rtc(Some(1_800_000_000), 1_800_000_030).state,
            Judgement::Ok
        );
    }
}
