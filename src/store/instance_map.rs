//! The table of instance numbers, which replace instance names in clients' tokens.
//!
//! A number never changes once it was assigned, because clients keep tokens that hold it (Synapse's `instance_map`).
//! Every instance assigns numbers to all writers it knows when it starts. So each writer has a number before a token can
//! name it.

use rusqlite::{Connection, Transaction};

use super::database::{Database, DatabaseError};
use squall_protocol::{InstanceId, InstanceMap, InstanceName};

/// Assigns a number to each of `instances` that has none, and returns the map.
///
/// # Errors
/// The database failed.
pub async fn load(database: &Database, mut instances: Vec<InstanceName>) -> Result<InstanceMap, DatabaseError> {
    instances.sort();
    database.transaction("load_instance_map", move |tx| assign(tx, &instances)).await
}

/// Returns the map.
///
/// # Errors
/// The database failed.
pub fn read(database: &Connection) -> rusqlite::Result<InstanceMap> {
    let mut query = database.prepare_cached("SELECT instance_name, instance_id FROM instance_map")?;
    let entries = query.query_map((), |row| {
        Ok((InstanceName::from(row.get::<_, String>("instance_name")?), InstanceId(row.get("instance_id")?)))
    })?;
    entries.collect()
}

fn assign(tx: &Transaction<'_>, instances: &[InstanceName]) -> rusqlite::Result<InstanceMap> {
    let map = read(tx)?;
    let mut missing = instances.iter().filter(|instance| map.id(instance).is_none()).peekable();
    if missing.peek().is_none() {
        return Ok(map);
    }
    let mut insert = tx.prepare_cached(
        "INSERT INTO instance_map (instance_id, instance_name)
         SELECT COALESCE(MAX(instance_id), 0) + 1, ?1 FROM instance_map",
    )?;
    for instance in missing {
        insert.execute([instance.as_str()])?;
    }
    read(tx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory;

    fn names(names: &[&str]) -> Vec<InstanceName> {
        names.iter().map(|name| InstanceName::from(*name)).collect()
    }

    #[test]
    fn a_number_never_changes_and_new_instances_get_new_ones() {
        let mut database = memory::empty();
        let tx = database.transaction().unwrap();
        let first = assign(&tx, &names(&["master", "writer1"])).unwrap();
        let second = assign(&tx, &names(&["alpha", "writer1"])).unwrap();
        for instance in names(&["master", "writer1"]) {
            assert_eq!(second.id(&instance), first.id(&instance));
        }
        assert_eq!(second.id(&"alpha".into()), Some(InstanceId(3)));
        assert_eq!(second.name(InstanceId(3)), Some(&"alpha".into()));
        assert_eq!(second, read(&tx).unwrap());
    }

    #[test]
    fn an_instance_that_left_the_configuration_keeps_its_number() {
        let mut database = memory::empty();
        let tx = database.transaction().unwrap();
        assign(&tx, &names(&["former"])).unwrap();
        assert_eq!(assign(&tx, &names(&["writer1"])).unwrap().name(InstanceId(1)), Some(&"former".into()));
    }
}
