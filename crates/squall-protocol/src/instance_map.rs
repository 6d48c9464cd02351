//! The numbers that replace instance names in clients' tokens, where names would be too long.
//!
//! A number never changes once it was assigned, because clients keep tokens that hold it (Synapse's `instance_map`).

use std::collections::BTreeMap;

use super::InstanceName;

/// The number of an instance in clients' tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub i64);

/// The numbers of all instances that ever wrote a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceMap {
    ids: BTreeMap<InstanceName, InstanceId>,
    names: BTreeMap<InstanceId, InstanceName>,
}

impl InstanceMap {
    /// Returns the number of `instance`.
    pub fn id(&self, instance: &InstanceName) -> Option<InstanceId> {
        self.ids.get(instance).copied()
    }

    /// Returns the instance whose number is `id`.
    pub fn name(&self, id: InstanceId) -> Option<&InstanceName> {
        self.names.get(&id)
    }
}

impl FromIterator<(InstanceName, InstanceId)> for InstanceMap {
    fn from_iter<T: IntoIterator<Item = (InstanceName, InstanceId)>>(entries: T) -> Self {
        let ids: BTreeMap<_, _> = entries.into_iter().collect();
        let names = ids.iter().map(|(name, id)| (*id, name.clone())).collect();
        InstanceMap { ids, names }
    }
}
