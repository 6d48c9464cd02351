//! The followers of one instance.

use std::rc::Rc;

use super::StreamFollower;
use squall_protocol::{InstanceName, StreamName};

/// Names a follower: the stream, and the writer whose rows are followed.
pub(super) type FollowerKey = (StreamName, InstanceName);

/// The followers of one instance, which are looked up for each row.
pub(super) struct Followers {
    /// In the order of the keys.
    all: Vec<(FollowerKey, Rc<StreamFollower>)>,
}

impl Followers {
    /// Returns the follower of `writer`'s rows of `stream`, and its key.
    pub(super) fn get(&self, stream: &str, writer: &str) -> Option<&(FollowerKey, Rc<StreamFollower>)> {
        let found = self.all.binary_search_by(|((of, by), _)| (of.as_str(), by.as_str()).cmp(&(stream, writer)));
        found.ok().map(|index| &self.all[index])
    }
}

impl FromIterator<(FollowerKey, Rc<StreamFollower>)> for Followers {
    fn from_iter<T: IntoIterator<Item = (FollowerKey, Rc<StreamFollower>)>>(followers: T) -> Self {
        let mut all: Vec<_> = followers.into_iter().collect();
        all.sort_by(|(key, _), (other, _)| key.cmp(other));
        Followers { all }
    }
}
