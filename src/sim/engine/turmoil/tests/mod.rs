//! The engine's behaviour.
