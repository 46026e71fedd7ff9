//! Promises of the README that no other test keeps whole, each in the file of its number: the real program in front of
//! a scripted origin. Where another test keeps one, the README's table names that.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may stop at the first broken assumption"
)]

mod breaks;
mod crowd;
mod p01_one_fetch_for_many;
mod p02_leaving_harms_nobody;
mod p09_wan_down;
mod p12_slow_reader;
mod p13_bounds;
mod p14_overload;
mod p16_front_door;
mod p17_agents;
mod p20_privacy;
