//! What is measured: a closed list of metrics, each with its unit in its name.

use crate::state::states;
use serde::{Deserialize, Serialize};
use std::fmt;

states! {
    /// A quantity that a gateway measures of itself. Numbered by position, only appended.
    Metric {
        /// Time that all cores together were busy, of all there was.
        CpuBusy = "cpu_busy_permille",
        /// Time that all cores together waited for the disk, of all there was.
        CpuIoWait = "cpu_iowait_permille",
        /// Load average of one minute, in thousandths.
        Load = "load_1m_milli",
        /// Memory that programs may still take without swapping.
        MemoryAvailable = "memory_available_kib",
        /// Memory of the machine.
        MemoryTotal = "memory_total_kib",
        /// Swap in use.
        SwapUsed = "swap_used_kib",
        /// Read from a disk (label: device).
        DiskRead = "disk_read_kib_per_s",
        /// Written to a disk (label: device).
        DiskWritten = "disk_written_kib_per_s",
        /// Time that a disk was busy (label: device).
        DiskBusy = "disk_busy_permille",
        /// Free room of the data directory's file system.
        DiskFree = "disk_free_mib",
        /// Received (label: interface).
        NetReceived = "net_received_bytes_per_s",
        /// Sent (label: interface).
        NetSent = "net_sent_bytes_per_s",
        /// Faults of an interface in either direction (label: interface).
        NetErrors = "net_errors_per_s",
        /// Share of 10 s in which some task waited for a core, in hundredths of a percent.
        CpuPressure = "cpu_pressure_some_centipercent",
        /// Share of 10 s in which some task waited for memory, in hundredths of a percent.
        MemoryPressure = "memory_pressure_some_centipercent",
        /// Share of 10 s in which every task waited for memory, in hundredths of a percent.
        MemoryStall = "memory_pressure_full_centipercent",
        /// Share of 10 s in which some task waited for a disk, in hundredths of a percent.
        IoPressure = "io_pressure_some_centipercent",
        /// Share of 10 s in which every task waited for a disk, in hundredths of a percent.
        IoStall = "io_pressure_full_centipercent",
        /// A temperature (label: sensor).
        Temperature = "temperature_millicelsius",
        /// Time that a GPU was busy (label: index).
        GpuBusy = "gpu_busy_permille",
        /// Memory of a GPU in use (label: index).
        GpuMemoryUsed = "gpu_memory_used_mib",
        /// Memory of a GPU (label: index).
        GpuMemoryTotal = "gpu_memory_total_mib",
        /// Temperature of a GPU (label: index).
        GpuTemperature = "gpu_temperature_millicelsius",
        /// Power that a GPU takes (label: index).
        GpuPower = "gpu_power_milliwatt",
        /// CPU time of the agent itself, of one core.
        AgentCpu = "agent_cpu_permille",
        /// Resident memory of the agent itself.
        AgentMemory = "agent_memory_kib",
        /// Written to the disk by the agent itself.
        AgentWritten = "agent_written_kib_per_s",
    }
}

/// A series: a metric, and what it was measured of. A metric that this version does not know keeps
/// its number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Key {
    /// Position of the [`Metric`] in its list.
    pub metric: u16,
    /// Device, interface, sensor; empty if there is only one.
    pub label: String,
}

impl Key {
    /// Longest label, in bytes; what is longer is cut.
    pub const LABEL_BYTES: usize = 48;

    /// The series of `metric` at `label`.
    #[must_use]
    pub fn new(metric: Metric, label: &str) -> Self {
        let end = (0..=label.len().min(Self::LABEL_BYTES))
            .rev()
            .find(|end| label.is_char_boundary(*end));
        Self {
            metric: metric as u16,
            label: label[..end.unwrap_or(0)].to_owned(),
        }
    }

    /// What is measured, if this version knows it.
    #[must_use]
    pub fn metric(&self) -> Option<Metric> {
        Metric::ALL.get(usize::from(self.metric)).copied()
    }

    /// Whether a person means it by `text`: its whole name, or the beginning of a metric's name.
    #[must_use]
    pub fn is_meant_by(&self, text: &str) -> bool {
        let name = self.to_string();
        name == text || name.split('{').next().is_some_and(|m| m.starts_with(text))
    }
}

impl fmt::Display for Key {
    /// `disk_free_mib`, `disk_read_kib_per_s{sda}`, `metric_99`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.metric() {
            Some(metric) => f.write_str(metric.text())?,
            None => write!(f, "metric_{}", self.metric)?,
        }
        if self.label.is_empty() {
            Ok(())
        } else {
            write!(f, "{{{}}}", self.label)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_metric_and_label_and_labels_are_cut_between_characters() {
        let key = Key::new(Metric::DiskRead, "sda");
        assert_eq!(key.to_string(), "disk_read_kib_per_s{sda}");
        assert!(key.is_meant_by("disk") && key.is_meant_by("disk_read_kib_per_s{sda}"));
        assert!(!key.is_meant_by("disk_written"));
        let unknown = Key {
            metric: 900,
            label: String::new(),
        };
        assert_eq!(unknown.to_string(), "metric_900");
        let long = Key::new(Metric::Temperature, &"ä".repeat(40));
        assert_eq!(long.label.len(), 48);
    }
}
