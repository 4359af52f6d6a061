//! GPUs, by NVIDIA's management library, which is loaded when the agent starts if it is there.

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use shared::telemetry::{Key, Metric};
use std::ffi::OsStr;
use std::path::Path;

/// GPUs that are measured, at most.
const GPUS: u32 = 16;

/// The library, and how many GPUs it knows.
#[derive(Debug)]
pub(super) struct Gpus {
    nvml: Nvml,
    count: u32,
}

impl Gpus {
    /// The machine's GPUs, by the library at `path` or the system's; none if there is no such
    /// library or no GPU.
    pub(super) fn find(path: Option<&Path>) -> Option<Self> {
        let names = ["libnvidia-ml.so.1", "libnvidia-ml.so"].map(OsStr::new);
        let names = path.map_or_else(|| names.to_vec(), |path| vec![path.as_os_str()]);
        let mut failed = String::new();
        for name in names {
            match Nvml::builder().lib_path(name).init() {
                Ok(nvml) => {
                    let count = nvml.device_count().unwrap_or(0).min(GPUS);
                    tracing::info!(gpus = count, "GPUs are measured");
                    return (count > 0).then_some(Self { nvml, count });
                }
                Err(error) => failed = error.to_string(),
            }
        }
        tracing::debug!(why = failed, "no GPUs are measured");
        None
    }

    /// Adds what each GPU tells.
    pub(super) fn measure(&self, values: &mut Vec<(Key, i64)>) {
        for index in 0..self.count {
            let Ok(device) = self.nvml.device_by_index(index) else {
                continue;
            };
            let label = index.to_string();
            let mut push = |metric, value: Option<u64>| {
                let value = value.and_then(|value| i64::try_from(value).ok());
                values.extend(value.map(|value| (Key::new(metric, &label), value)));
            };
            let busy = device.utilization_rates().ok();
            push(Metric::GpuBusy, busy.map(|busy| u64::from(busy.gpu) * 10));
            let memory = device.memory_info().ok();
            push(Metric::GpuMemoryUsed, memory.as_ref().map(|m| m.used >> 20));
            push(
                Metric::GpuMemoryTotal,
                memory.as_ref().map(|m| m.total >> 20),
            );
            let heat = device.temperature(TemperatureSensor::Gpu).ok();
            push(Metric::GpuTemperature, heat.map(|t| u64::from(t) * 1000));
            push(Metric::GpuPower, device.power_usage().ok().map(u64::from));
        }
    }
}
