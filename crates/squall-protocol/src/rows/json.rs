//! JSON of any shape inside a row.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// JSON of any shape inside a row. Its order, that of its text, only lets rows be sorted and compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(pub Value);

impl Ord for Json {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.to_string().cmp(&other.0.to_string())
    }
}

impl PartialOrd for Json {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Json {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.to_string().hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_ordered_by_its_text() {
        let (low, high) = (Json(json!({ "a": 1 })), Json(json!({ "a": 2 })));
        assert_eq!(low.partial_cmp(&high), Some(Ordering::Less));
        assert_eq!(high.cmp(&low), Ordering::Greater);
        assert_eq!(low.partial_cmp(&low), Some(Ordering::Equal));
    }
}
