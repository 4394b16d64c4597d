//! Floats as whole numbers. A cast of a float saturates and turns NaN into 0: these names say that it is meant.

/// `value` without its fraction; 0 if it is negative or NaN.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating is documented")]
pub const fn truncated_u64(value: f64) -> u64 {
    value as u64
}

/// `value` without its fraction; 0 if it is negative or NaN.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating is documented")]
pub(crate) const fn truncated_usize(value: f64) -> usize {
    value as usize
}

/// `value` without its fraction; 0 if it is NaN.
#[expect(clippy::cast_possible_truncation, reason = "saturating is documented")]
pub(crate) const fn truncated_i32(value: f64) -> i32 {
    value as i32
}
