//! The configurations of a deployment to which a writer is added while it runs, and the instances that have the newer one.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use super::deployment::Deployment;
use super::plan::Plan;
use crate::instance::Config;
use squall_protocol::InstanceName;

/// The configurations of a run, and the instances that have the newer one.
pub(super) struct Rollout {
    /// The configuration of the start.
    before: Rc<Config>,
    /// The configuration of the end: the same one, if no writer is added.
    after: Rc<Config>,
    /// The writer that is added.
    added: Option<InstanceName>,
    reached: RefCell<BTreeSet<InstanceName>>,
}

impl Rollout {
    /// Returns the configurations of `plan`. No instance has the newer one.
    pub(super) fn new(plan: &Plan) -> Self {
        let config = |deployment: &Deployment| Rc::new(deployment.config(&plan.presence, plan.limits.limits()));
        Rollout {
            before: config(&plan.topology.without_added()),
            after: config(&plan.topology),
            added: plan.topology.added.as_ref().map(|added| added.host.as_str().into()),
            reached: RefCell::default(),
        }
    }

    /// Returns the configuration with which `instance` starts.
    pub(super) fn config_of(&self, instance: &InstanceName) -> &Rc<Config> {
        if self.reached.borrow().contains(instance) { &self.after } else { &self.before }
    }

    /// Returns the configuration by which clients choose the instance that they ask: the newer one once all instances have
    /// it.
    pub(super) fn config_of_clients(&self) -> &Rc<Config> {
        match &self.added {
            Some(added) => self.config_of(added),
            None => &self.after,
        }
    }

    /// Returns false if `instance` is the writer that is added, and its turn has not come.
    pub(super) fn may_start(&self, instance: &InstanceName) -> bool {
        self.added.as_ref() != Some(instance) || self.reached.borrow().contains(instance)
    }

    /// Gives `instance` the newer configuration, from its next start on.
    pub(super) fn reach(&self, instance: &InstanceName) {
        self.reached.borrow_mut().insert(instance.clone());
    }
}
