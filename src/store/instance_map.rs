//! The numbers that instances go by where their names would be too long: in clients' tokens.
//!
//! A number, once given, is for ever: tokens that hold it lie with clients (Synapse's `instance_map`). Every instance
//! enters all writers it knows of when it starts, so that each of them has a number before any token can name it.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction};

use super::database::{Database, DatabaseError};
use crate::protocol::InstanceName;

/// The number of an instance in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub i64);

/// The numbers of all instances that ever wrote a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceMap {
    ids: BTreeMap<InstanceName, InstanceId>,
    names: BTreeMap<InstanceId, InstanceName>,
}

impl InstanceMap {
    /// Reads the map, after giving a number to each of `instances` that has none.
    ///
    /// # Errors
    /// The database failed.
    pub async fn load(database: &Database, mut instances: Vec<InstanceName>) -> Result<Self, DatabaseError> {
        instances.sort();
        database.transaction("load_instance_map", move |tx| enter(tx, &instances)).await
    }

    /// Reads the map as it is.
    ///
    /// # Errors
    /// The database failed.
    pub fn read(database: &Connection) -> rusqlite::Result<Self> {
        let mut query = database.prepare_cached("SELECT instance_name, instance_id FROM instance_map")?;
        let entries = query.query_map((), |row| {
            Ok((InstanceName::from(row.get::<_, String>("instance_name")?), InstanceId(row.get("instance_id")?)))
        })?;
        entries.collect()
    }

    /// The number of `instance`.
    pub fn id(&self, instance: &InstanceName) -> Option<InstanceId> {
        self.ids.get(instance).copied()
    }

    /// The instance whose number is `id`.
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

fn enter(tx: &Transaction<'_>, instances: &[InstanceName]) -> rusqlite::Result<InstanceMap> {
    let map = InstanceMap::read(tx)?;
    let mut missing = instances.iter().filter(|instance| map.id(instance).is_none()).peekable();
    if missing.peek().is_none() {
        return Ok(map);
    }
    let mut enter = tx.prepare_cached(
        "INSERT INTO instance_map (instance_id, instance_name)
         SELECT COALESCE(MAX(instance_id), 0) + 1, ?1 FROM instance_map",
    )?;
    for instance in missing {
        enter.execute([instance.as_str()])?;
    }
    InstanceMap::read(tx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory;

    fn names(names: &[&str]) -> Vec<InstanceName> {
        names.iter().map(|name| InstanceName::from(*name)).collect()
    }

    #[test]
    fn a_number_once_given_stays_and_new_instances_get_new_ones() {
        let mut database = memory::empty();
        let tx = database.transaction().unwrap();
        let first = enter(&tx, &names(&["master", "writer1"])).unwrap();
        let second = enter(&tx, &names(&["alpha", "writer1"])).unwrap();
        for instance in names(&["master", "writer1"]) {
            assert_eq!(second.id(&instance), first.id(&instance));
        }
        assert_eq!(second.id(&"alpha".into()), Some(InstanceId(3)));
        assert_eq!(second.name(InstanceId(3)), Some(&"alpha".into()));
        assert_eq!(second, InstanceMap::read(&tx).unwrap());
    }

    #[test]
    fn an_instance_that_is_in_no_configuration_any_more_keeps_its_number() {
        let mut database = memory::empty();
        let tx = database.transaction().unwrap();
        enter(&tx, &names(&["former"])).unwrap();
        assert_eq!(enter(&tx, &names(&["writer1"])).unwrap().name(InstanceId(1)), Some(&"former".into()));
    }
}
