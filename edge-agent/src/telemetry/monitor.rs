//! Measures the machine and the agent itself: plain reads of `/proc` and `/sys`, a few files each
//! time. What a kernel does not offer is left out.

use super::gpu::Gpus;
use edge_core::pressure::Pressure;
use rustix::time::{ClockId, clock_gettime};
use shared::telemetry::{Key, Metric};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Disks, interfaces and sensors that are measured, each; more are left out.
const EACH: usize = 16;
/// Drivers of hardware monitors that measure processors.
const PROCESSORS: [&str; 5] = [
    "coretemp",
    "k10temp",
    "zenpower",
    "cpu_thermal",
    "soc_thermal",
];
/// How often disks and sensors are looked for.
const LOOK: Duration = Duration::from_secs(300);

/// Where the kernel tells, and what was read last.
#[derive(Debug)]
pub(super) struct Monitor {
    proc: PathBuf,
    sys: PathBuf,
    data: PathBuf,
    gpus: Option<Gpus>,
    disks: Vec<String>,
    sensors: Vec<(String, PathBuf)>,
    looked: Option<Instant>,
    before: BTreeMap<Key, (Instant, u64)>,
}

/// What one measurement gave.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) values: Vec<(Key, i64)>,
    pub(super) pressure: Pressure,
}

impl Monitor {
    /// Measures this machine; `data` lies on the file system whose room counts, `nvml` is the
    /// library that knows GPUs if it is not the system's.
    pub(super) fn new(data: &Path, nvml: Option<&Path>) -> Self {
        let gpus = Gpus::find(nvml);
        Self::at(Path::new("/proc"), Path::new("/sys"), data, gpus)
    }

    fn at(proc: &Path, sys: &Path, data: &Path, gpus: Option<Gpus>) -> Self {
        Self {
            proc: proc.to_owned(),
            sys: sys.to_owned(),
            data: data.to_owned(),
            gpus,
            disks: Vec::new(),
            sensors: Vec::new(),
            looked: None,
            before: BTreeMap::new(),
        }
    }

    /// Measures now. What is a rate comes from the second call on.
    pub(super) fn measure(&mut self, now: Instant) -> Measured {
        if self.looked.is_none_or(|at| now - at >= LOOK) {
            self.looked = Some(now);
            self.disks = names(&self.sys.join("block"));
            self.disks.retain(|name| {
                !["loop", "ram", "zram"]
                    .iter()
                    .any(|dull| name.starts_with(dull))
            });
            self.disks.truncate(EACH);
            self.sensors = sensors(&self.sys);
        }
        let mut out = Measured::default();
        self.cpu(now, &mut out);
        self.memory(&mut out);
        self.disk(now, &mut out);
        self.net(now, &mut out);
        self.stalls(&mut out);
        self.temperatures(&mut out);
        self.agent(now, &mut out);
        if let Some(gpus) = &self.gpus {
            gpus.measure(&mut out.values);
        }
        out
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.proc.join(name)).unwrap_or_default()
    }

    /// Growth a second of a counter since it was read last, times `factor`.
    fn rate(&mut self, key: Key, now: Instant, count: u64, factor: f64, out: &mut Measured) {
        if let Some((at, before)) = self.before.insert(key.clone(), (now, count))
            && let Some(grown) = count.checked_sub(before)
        {
            let seconds = (now - at).as_secs_f64().max(0.001);
            out.values
                .push((key, (grown as f64 * factor / seconds) as i64));
        }
    }

    fn cpu(&mut self, now: Instant, out: &mut Measured) {
        let stat = self.read("stat");
        let times: Vec<u64> = stat.lines().next().map(numbers).unwrap_or_default();
        // user nice system idle iowait irq softirq steal, then what is in user already
        if times.len() >= 8 {
            let all: u64 = times[..8].iter().sum();
            let busy = all - times[3] - times[4];
            let keys = [Metric::CpuBusy, Metric::CpuIoWait].map(|m| Key::new(m, ""));
            let total = Key::new(Metric::Load, "ticks");
            let passed = self
                .before
                .insert(total, (now, all))
                .map(|(_, b)| all - b.min(all));
            for (key, count) in keys.into_iter().zip([busy, times[4]]) {
                let before = self.before.insert(key.clone(), (now, count));
                if let (Some((_, before)), Some(passed @ 1..)) = (before, passed) {
                    let grown = count.saturating_sub(before) * 1000 / passed;
                    out.values.push((key, grown.min(1000).cast_signed()));
                }
            }
        }
        let load = self.read("loadavg");
        let first = load
            .split(' ')
            .next()
            .and_then(|text| text.parse::<f64>().ok());
        if let Some(load) = first {
            out.values
                .push((Key::new(Metric::Load, ""), (load * 1000.0) as i64));
        }
    }

    fn memory(&self, out: &mut Measured) {
        let text = self.read("meminfo");
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<i64>().ok()
        };
        let mut push = |metric, value: Option<i64>| {
            out.values.extend(value.map(|v| (Key::new(metric, ""), v)));
        };
        let (total, available) = (field("MemTotal:"), field("MemAvailable:"));
        push(Metric::MemoryTotal, total);
        push(Metric::MemoryAvailable, available);
        let swap = field("SwapTotal:").zip(field("SwapFree:"));
        push(Metric::SwapUsed, swap.map(|(total, free)| total - free));
        if let (Some(total @ 1..), Some(available)) = (total, available) {
            let permille = available.max(0) * 1000 / total;
            out.pressure.memory_available_permille = u16::try_from(permille).ok();
        }
    }

    fn disk(&mut self, now: Instant, out: &mut Measured) {
        let text = self.read("diskstats");
        for line in text.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let Some(name) = fields.get(2).filter(|n| self.disks.iter().any(|d| d == *n)) else {
                continue;
            };
            let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
            // sectors are of 512 bytes, whatever the disk says; the busy time is in ms
            let all = [
                (Metric::DiskRead, field(5), 0.5),
                (Metric::DiskWritten, field(9), 0.5),
                (Metric::DiskBusy, field(12), 1.0),
            ];
            for (metric, count, factor) in all {
                if let Some(count) = count {
                    self.rate(Key::new(metric, name), now, count, factor, out);
                }
            }
        }
        if let Ok(stat) = rustix::fs::statvfs(&self.data) {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
            out.values
                .push((Key::new(Metric::DiskFree, ""), free.cast_signed()));
        }
    }

    fn net(&mut self, now: Instant, out: &mut Measured) {
        let text = self.read("net/dev");
        let mut left = EACH;
        for line in text.lines().skip(2) {
            let Some((name, counts)) = line.split_once(':') else {
                continue;
            };
            let (name, counts) = (name.trim(), numbers_of(counts));
            if name == "lo" || counts.len() < 12 || left == 0 {
                continue;
            }
            left -= 1;
            let errors = counts[2] + counts[10];
            for (metric, count) in [
                (Metric::NetReceived, counts[0]),
                (Metric::NetSent, counts[8]),
                (Metric::NetErrors, errors),
            ] {
                self.rate(Key::new(metric, name), now, count, 1.0, out);
            }
        }
    }

    fn stalls(&self, out: &mut Measured) {
        let mut stall = |what: &str, kind: &str, metric| {
            let text = self.read(what);
            let line = text.lines().find(|line| line.starts_with(kind))?;
            let average = line
                .split(' ')
                .find_map(|field| field.strip_prefix("avg10="))?;
            let share = (average.parse::<f64>().ok()? * 100.0) as i64;
            out.values.push((Key::new(metric, ""), share));
            u16::try_from(share).ok()
        };
        let cpu = stall("pressure/cpu", "some", Metric::CpuPressure);
        stall("pressure/memory", "some", Metric::MemoryPressure);
        let memory = stall("pressure/memory", "full", Metric::MemoryStall);
        stall("pressure/io", "some", Metric::IoPressure);
        let io = stall("pressure/io", "full", Metric::IoStall);
        out.pressure.cpu_some = cpu;
        out.pressure.memory_full = memory;
        out.pressure.io_full = io;
    }

    fn temperatures(&self, out: &mut Measured) {
        for (label, path) in &self.sensors {
            let text = fs::read_to_string(path).unwrap_or_default();
            if let Ok(value) = text.trim().parse::<i32>() {
                let key = Key::new(Metric::Temperature, label);
                out.values.push((key, i64::from(value)));
                if tells_of_the_machine(label) {
                    let hottest = &mut out.pressure.temperature;
                    *hottest = (*hottest).max(Some(value));
                }
            }
        }
    }

    fn agent(&mut self, now: Instant, out: &mut Measured) {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let micros = used.tv_sec.unsigned_abs() * 1_000_000 + used.tv_nsec.unsigned_abs() / 1000;
        self.rate(Key::new(Metric::AgentCpu, ""), now, micros, 0.001, out);
        let pages = numbers_of(&self.read("self/statm"));
        if let Some(resident) = pages.get(1) {
            let kib = resident * (rustix::param::page_size() as u64 / 1024);
            out.values
                .push((Key::new(Metric::AgentMemory, ""), kib.cast_signed()));
        }
        let io = self.read("self/io");
        let line = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        if let Some(written) = line.and_then(|text| text.parse().ok()) {
            let factor = 1.0 / 1024.0;
            self.rate(
                Key::new(Metric::AgentWritten, ""),
                now,
                written,
                factor,
                out,
            );
        }
    }
}

/// The numbers behind the first word of a line.
fn numbers(line: &str) -> Vec<u64> {
    numbers_of(line.split_once(' ').map_or("", |(_, rest)| rest))
}

fn numbers_of(text: &str) -> Vec<u64> {
    text.split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect()
}

/// Names in a directory, in order; none if it is not there.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Labels and files of all thermal zones and hardware monitors.
fn sensors(sys: &Path) -> Vec<(String, PathBuf)> {
    let text = |path: &Path| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let mut all = Vec::new();
    let zones = sys.join("class/thermal");
    for zone in names(&zones)
        .iter()
        .filter(|n| n.starts_with("thermal_zone"))
    {
        let dir = zones.join(zone);
        let kind = text(&dir.join("type")).unwrap_or_else(|_| zone.clone());
        all.push((kind, dir.join("temp")));
    }
    let monitors = sys.join("class/hwmon");
    for monitor in names(&monitors) {
        let dir = monitors.join(&monitor);
        let name = text(&dir.join("name")).unwrap_or(monitor);
        for file in names(&dir) {
            let Some(sensor) = file
                .strip_suffix("_input")
                .filter(|f| f.starts_with("temp"))
            else {
                continue;
            };
            let label = text(&dir.join(format!("{sensor}_label")));
            let label = label.unwrap_or_else(|_| sensor.to_owned());
            all.push((format!("{name}/{label}"), dir.join(&file)));
        }
    }
    all.truncate(EACH);
    tell_apart(&mut all);
    all
}

/// Whether work is to wait when this sensor is hot: thermal zones and processors. Other chips of
/// boards have inputs that nothing is connected to, and read as 127 °C.
fn tells_of_the_machine(label: &str) -> bool {
    let driver = label.split_once('/').map(|(driver, _)| driver);
    driver.is_none_or(|driver| PROCESSORS.contains(&driver))
}

/// Sensors of one name get a number.
fn tell_apart(all: &mut [(String, PathBuf)]) {
    let mut seen = BTreeMap::<String, u32>::new();
    for (label, _) in all {
        let times = seen.entry(label.clone()).or_default();
        *times += 1;
        if *times > 1 {
            *label = format!("{label}#{times}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn lay(dir: &Path, tick: u64) {
        let proc = dir.join("proc");
        let cpu = format!(
            "cpu  {} 0 0 {} {} 0 0 0 0 0\n",
            100 + 30 * tick,
            60 * tick,
            10 * tick
        );
        write(&proc, "stat", &cpu);
        write(&proc, "loadavg", "1.25 0.5 0.1 1/100 4242\n");
        let memory = "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n\
                      SwapTotal: 50 kB\nSwapFree: 20 kB\n";
        write(&proc, "meminfo", memory);
        let sectors = 2000 * tick;
        let disk = format!(
            "8 0 sda 1 0 {sectors} 0 1 0 {sectors} 0 0 {} 0\n7 0 loop0 1 0 9 0 1 0 9 0 0 9 0\n",
            1500 * tick
        );
        write(&proc, "diskstats", &disk);
        let net = format!(
            "Inter-| Receive\n face |bytes\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  eth0: {} 1 0 0 0 0 0 0 {} 1 2 0 0 0 0 0\n",
            3000 * tick,
            300 * tick
        );
        write(&proc, "net/dev", &net);
        let stall = "some avg10=12.34 avg60=0.00 avg300=0.00 total=1\n\
                     full avg10=5.00 avg60=0.00 avg300=0.00 total=1\n";
        for what in ["cpu", "memory", "io"] {
            write(&proc, &format!("pressure/{what}"), stall);
        }
        let sys = dir.join("sys");
        for name in ["sda", "loop0"] {
            fs::create_dir_all(sys.join("block").join(name)).unwrap();
        }
        write(&sys, "class/thermal/thermal_zone0/type", "x86_pkg_temp\n");
        write(&sys, "class/thermal/thermal_zone0/temp", "45000\n");
        write(&sys, "class/hwmon/hwmon0/name", "nvme\n");
        write(&sys, "class/hwmon/hwmon0/temp1_input", "51850\n");
        write(&sys, "class/hwmon/hwmon0/temp2_input", "not a number\n");
    }

    #[test]
    fn what_the_kernel_tells_is_measured() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path();
        lay(dir, 1);
        let mut monitor = Monitor::at(&dir.join("proc"), &dir.join("sys"), dir, None);
        let start = Instant::now();
        monitor.measure(start);
        lay(dir, 2);
        let measured = monitor.measure(start + Duration::from_secs(3));
        let values: BTreeMap<String, i64> = measured
            .values
            .iter()
            .map(|(key, value)| (key.to_string(), *value))
            .collect();
        for (name, expected) in [
            ("cpu_busy_permille", 300),
            ("cpu_iowait_permille", 100),
            ("load_1m_milli", 1250),
            ("memory_available_kib", 250),
            ("swap_used_kib", 30),
            ("disk_read_kib_per_s{sda}", 333),
            ("disk_busy_permille{sda}", 500),
            ("net_received_bytes_per_s{eth0}", 1000),
            ("net_sent_bytes_per_s{eth0}", 100),
            ("net_errors_per_s{eth0}", 0),
            ("cpu_pressure_some_centipercent", 1234),
            ("io_pressure_full_centipercent", 500),
            ("temperature_millicelsius{x86_pkg_temp}", 45_000),
            ("temperature_millicelsius{nvme/temp1}", 51_850),
        ] {
            assert_eq!(values.get(name), Some(&expected), "{name} of {values:?}");
        }
        assert!(
            !values
                .keys()
                .any(|name| name.contains("loop") || name.contains("lo}"))
        );
        assert_eq!(measured.pressure.memory_available_permille, Some(250));
        assert_eq!(measured.pressure.temperature, Some(45_000), "not a disk's");
        assert_eq!(measured.pressure.io_full, Some(500));
    }

    #[test]
    fn a_kernel_that_tells_nothing_is_measured_as_far_as_it_goes() {
        let home = tempfile::tempdir().unwrap();
        let mut monitor = Monitor::at(home.path(), home.path(), home.path(), None);
        monitor.measure(Instant::now());
        let measured = monitor.measure(Instant::now());
        assert!(
            measured
                .values
                .iter()
                .any(|(key, _)| key.to_string() == "disk_free_mib")
        );
        assert_eq!(measured.pressure, Pressure::default());
    }
}
