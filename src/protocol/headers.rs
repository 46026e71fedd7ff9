//! x
use http::{HeaderMap, HeaderValue};
pub fn is_hop_by_hop(_name: &str) -> bool {
    todo!()
}
pub fn strip_hop_by_hop(_headers: &mut HeaderMap) {
    todo!()
}
pub fn storable_headers(_headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    todo!()
}
pub fn header_map(_stored: &[(String, Vec<u8>)]) -> HeaderMap {
    todo!()
}
pub fn via_value(_node: &str, _version: http::Version) -> HeaderValue {
    todo!()
}
pub fn loop_tokens(_headers: &HeaderMap) -> Vec<&str> {
    todo!()
}
pub fn render_loop<'a>(_tokens: impl IntoIterator<Item = &'a str>) -> Option<HeaderValue> {
    todo!()
}
