//! What a store lies on: memory (layer 1) or redb on a simulated disk (layer 2).

use crate::disk::{Damage, SimDisk};
use crate::plan::Layer;
use crate::rng::Rng;
use cloud_core::store as cloud;
use edge_core::memory::Disk as MemDisk;
use edge_core::store as edge;
use shared::wire::LogId;

/// The disk of an agent's store.
#[derive(Debug)]
pub enum EdgeMedium {
    /// Memory; made at the first opening.
    Memory(Option<MemDisk>),
    /// redb on a simulated disk.
    Disk(SimDisk),
}

impl EdgeMedium {
    /// An empty one.
    #[must_use]
    pub fn new(layer: Layer) -> Self {
        match layer {
            Layer::Cores | Layer::Link => Self::Memory(None),
            Layer::Disk => Self::Disk(SimDisk::default()),
        }
    }

    /// The simulated disk, if there is one.
    #[must_use]
    pub fn disk(&self) -> Option<&SimDisk> {
        match self {
            Self::Memory(_) => None,
            Self::Disk(disk) => Some(disk),
        }
    }

    /// A copy as it is now.
    #[must_use]
    pub fn copy(&self) -> Self {
        match self {
            Self::Memory(disk) => Self::Memory(disk.as_ref().map(MemDisk::copy)),
            Self::Disk(disk) => Self::Disk(SimDisk::of(disk.image())),
        }
    }

    /// Opens the store.
    ///
    /// # Errors
    /// What the store says.
    pub fn open(&mut self, log: LogId) -> Result<Box<dyn edge::Store>, edge::StoreError> {
        match self {
            Self::Memory(disk) => {
                let disk = disk.get_or_insert_with(|| MemDisk::new(log.node, log.incarnation));
                Ok(Box::new(edge_core::memory::MemStore::new(disk.clone())))
            }
            Self::Disk(disk) => open_edge(disk, log),
        }
    }

    /// The machine will die after so many more operations.
    pub fn burn_after(&self, ops: u64) {
        if let Self::Disk(disk) = self {
            disk.burn_after(ops);
        }
    }

    /// Nothing is written any more until the machine is started again.
    pub fn freeze(&self) {
        self.burn_after(0);
    }

    /// The process ended and the machine did not.
    pub fn survive_kill(&self) {
        if let Self::Disk(disk) = self {
            disk.survive_kill();
        }
    }

    /// The machine lost its power.
    pub fn cut_power(&self, rng: &mut Rng) -> Damage {
        self.disk()
            .map_or_else(Damage::default, |disk| disk.cut_power(rng))
    }
}

/// The disk of the coordinator's store.
#[derive(Debug)]
pub enum CloudMedium {
    /// Memory.
    Memory(cloud_core::memory::MemStore),
    /// redb on a simulated disk.
    Disk(SimDisk),
}

impl CloudMedium {
    /// An empty one.
    #[must_use]
    pub fn new(layer: Layer) -> Self {
        match layer {
            Layer::Cores | Layer::Link => Self::Memory(cloud_core::memory::MemStore::new()),
            Layer::Disk => Self::Disk(SimDisk::default()),
        }
    }

    /// The simulated disk, if there is one.
    #[must_use]
    pub fn disk(&self) -> Option<&SimDisk> {
        match self {
            Self::Memory(_) => None,
            Self::Disk(disk) => Some(disk),
        }
    }

    /// A copy as it is now.
    #[must_use]
    pub fn copy(&self) -> Self {
        match self {
            Self::Memory(store) => Self::Memory(store.image()),
            Self::Disk(disk) => Self::Disk(SimDisk::of(disk.image())),
        }
    }

    /// Opens the store.
    ///
    /// # Errors
    /// What the store says.
    pub fn open(&self) -> Result<Box<dyn cloud::Store>, cloud::StoreError> {
        match self {
            Self::Memory(store) => {
                let mut store = store.clone();
                cloud::Store::reopen(&mut store)?;
                Ok(Box::new(store))
            }
            Self::Disk(disk) => open_cloud(disk.clone()),
        }
    }
}

fn open_edge(disk: &SimDisk, log: LogId) -> Result<Box<dyn edge::Store>, edge::StoreError> {
    let identity = edge_store::Identity {
        node: log.node,
        incarnation: log.incarnation,
    };
    let reserve = Box::new(disk.clone());
    let make = || -> edge_store::MakeBackend {
        let disk = disk.clone();
        Box::new(move || Ok(Box::new(disk.clone()) as Box<dyn redb::StorageBackend>))
    };
    if disk.size() > 0 {
        let store = edge_store::open_beside(&make, identity, reserve)?;
        return Ok(Box::new(store));
    }
    // An agent makes its store aside and gives it its name when it is whole. An unfinished one is
    // never opened: the next start removes it and makes another.
    let made = edge_store::RedbStore::create(make(), identity);
    let store = made.inspect_err(|_| disk.remove_file())?;
    Ok(Box::new(store.with_reserve(reserve)))
}

fn open_cloud(disk: SimDisk) -> Result<Box<dyn cloud::Store>, cloud::StoreError> {
    let make: cloud_store::MakeBackend =
        Box::new(move || Ok(Box::new(disk.clone()) as Box<dyn redb::StorageBackend>));
    Ok(Box::new(cloud_store::RedbStore::open(make)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Full;
    use shared::ids::{Incarnation, NodeId};

    const LOG: LogId = LogId {
        node: NodeId([1; 16]),
        incarnation: Incarnation([2; 16]),
    };

    fn opens(medium: &mut EdgeMedium) -> bool {
        medium.open(LOG).is_ok()
    }

    #[test]
    fn a_store_that_could_not_be_made_is_made_when_that_is_possible() {
        let mut medium = EdgeMedium::new(Layer::Disk);
        let disk = medium.disk().cloned().expect("a disk");
        disk.fill_up(Full::default());
        assert!(!opens(&mut medium), "there is no room for it");
        disk.set_quota(None);
        assert!(opens(&mut medium), "there is room again");
    }

    #[test]
    fn a_store_whose_making_ended_anywhere_is_made_anew() {
        let mut ended = 0;
        for power in [false, true] {
            for ops in 0.. {
                let mut medium = EdgeMedium::new(Layer::Disk);
                medium.burn_after(ops);
                let made = opens(&mut medium);
                if power {
                    medium.cut_power(&mut Rng::new(ops));
                } else {
                    medium.survive_kill();
                }
                assert!(opens(&mut medium), "after {ops} operations");
                if made {
                    break;
                }
                ended += 1;
            }
        }
        assert!(ended > 10, "{ended} times");
    }
}
