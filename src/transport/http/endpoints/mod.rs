//! The table of endpoints, and the JSON bodies of their requests and responses.
//!
//! The router, the client and the metrics take names, methods and paths from [`Endpoint`]. An instance executes the
//! requests; its handlers are in `src/instance/endpoints/`.

pub mod account_data;
pub mod fed_send_edu;
pub mod presence;
pub mod send_events;
pub mod updates;

use http::Method;

/// An endpoint of the replication API between instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// Reads the rows of a stream that the instance writes.
    GetUpdates,
    /// Persists events.
    SendEvents,
    /// Sets account data of a user.
    AddUserAccountData,
    /// Sets account data of a user in a room.
    AddRoomAccountData,
    /// Applies an EDU: receipts, messages to devices, or typing.
    SendEdu,
    /// Sets the presence of a user.
    SetPresence,
    /// Records that a user was active.
    BumpPresence,
}

/// Where a request carries its transaction id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransactionId {
    /// In the last part of the path, as in Synapse.
    Path,
    /// In a header of Squall's own, which a client may leave out. Synapse sends none for these endpoints.
    Header,
}

/// One row of the table.
struct Row {
    method: Method,
    name: &'static str,
    arguments: &'static [&'static str],
    transaction_id: TransactionId,
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Endpoint; 7] = [
        Endpoint::GetUpdates,
        Endpoint::SendEvents,
        Endpoint::AddUserAccountData,
        Endpoint::AddRoomAccountData,
        Endpoint::SendEdu,
        Endpoint::SetPresence,
        Endpoint::BumpPresence,
    ];

    /// Returns the endpoint's row of the table.
    #[rustfmt::skip]
    fn row(self) -> Row {
        use TransactionId::{Header, Path};
        const GET: Method = Method::GET;
        const POST: Method = Method::POST;
        let (method, name, arguments, transaction_id): (_, _, &[&str], _) = match self {
            Endpoint::GetUpdates         => (GET,  "get_repl_stream_updates",   &["stream"],               Path),
            Endpoint::SendEvents         => (POST, "send_events",               &[],                       Path),
            Endpoint::AddUserAccountData => (POST, "add_user_account_data",     &["user", "type"],         Header),
            Endpoint::AddRoomAccountData => (POST, "add_room_account_data",     &["user", "room", "type"], Header),
            Endpoint::SendEdu            => (POST, "fed_send_edu",              &["type"],                 Path),
            Endpoint::SetPresence        => (POST, "presence_set_state",        &["user"],                 Header),
            Endpoint::BumpPresence       => (POST, "bump_presence_active_time", &["user"],                 Header),
        };
        Row { method, name, arguments, transaction_id }
    }

    /// Returns the endpoint called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Endpoint::ALL.into_iter().find(|endpoint| endpoint.name() == name)
    }

    /// Returns the name: the first part of the path, and the `endpoint` label of the metrics.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns the HTTP method.
    pub fn method(self) -> Method {
        self.row().method
    }

    /// Returns the names of the arguments, which follow the endpoint's name in the path.
    pub fn arguments(self) -> &'static [&'static str] {
        self.row().arguments
    }

    /// Returns true if the last part of the path is a transaction id. Otherwise a header may carry one.
    pub fn has_transaction_id_in_path(self) -> bool {
        matches!(self.row().transaction_id, TransactionId::Path)
    }

    /// Returns the path of a request, without its prefix and its transaction id.
    pub fn path(self, arguments: &[impl AsRef<str>]) -> String {
        let mut path = self.name().to_owned();
        for argument in arguments {
            path.push('/');
            path.extend(super::encode(argument.as_ref()));
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_found_by_its_name() {
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::from_name(endpoint.name()), Some(endpoint));
        }
        assert_eq!(Endpoint::from_name(""), None);
        assert_eq!(Endpoint::from_name("get_repl_stream"), None);
    }

    #[test]
    fn the_arguments_in_a_path_are_percent_encoded() {
        assert_eq!(Endpoint::SendEdu.path(&["m.receipt"]), "fed_send_edu/m.receipt");
        assert_eq!(Endpoint::AddUserAccountData.path(&["@a:b", "x/y"]), "add_user_account_data/%40a%3Ab/x%2Fy");
    }
}
