//! Rows of Synapse 1.19 (1.19.1, `replication/tcp/streams`), for reading its traffic.
//!
//! Nine of its sixteen streams have the rows that they have today. Three have other ones, and four streams are gone.

pub mod device_lists;
pub mod events;
pub mod groups;
pub mod public_rooms;
pub mod receipts;
pub mod tag_account_data;
pub mod user_signature;

use super::{account_data, backfill, caches, federation, presence, push_rules, pushers, to_device, typing};

rows! {
    account_data::AccountDataRow as AccountData,
    backfill::BackfillRow as Backfill,
    caches::CachesRow as Caches,
    device_lists::DeviceListsRow as DeviceLists,
    events::EventsRow as Events,
    federation::FederationRow as Federation,
    groups::GroupsRow as Groups,
    presence::PresenceRow as Presence,
    public_rooms::PublicRoomsRow as PublicRooms,
    push_rules::PushRulesRow as PushRules,
    pushers::PushersRow as Pushers,
    receipts::ReceiptsRow as Receipts,
    tag_account_data::TagAccountDataRow as TagAccountData,
    to_device::ToDeviceRow as ToDevice,
    typing::TypingRow as Typing,
    user_signature::UserSignatureRow as UserSignature,
}
