//! Handles on values that other CPUs or user space may access at the same time. No reference to such a value is ever made: fields are read
//! and written one by one, as volatile, in the order of the source.

use core::ptr::NonNull;

/// A value in a region.
pub struct Shared<T>(NonNull<T>);

impl<T> Clone for Shared<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `at` must be aligned and lie in a region, whose memory outlives every program run, and the fields of `T` must be numbers, for which
    /// any bits are valid. It need not have room for all of a `T`: the verifier checks the bounds of each access.
    #[inline(always)]
    pub const unsafe fn new(at: NonNull<T>) -> Self {
        Self(at)
    }

    /// For [`get`] and [`set`].
    #[inline(always)]
    pub const fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }

    /// The value after this one, in an array.
    #[inline(always)]
    pub const fn next(self) -> Self {
        let next = self.0.as_ptr().wrapping_add(1);
        // SAFETY: adding to the address of a region cannot wrap around to 0.
        Self(unsafe { NonNull::new_unchecked(next) })
    }
}

/// Reads a field of a [`Shared`], or an element of a field.
macro_rules! get {
    ($value:ident $(.$field:ident)+) => {{
        let value = $crate::shared::Shared::as_ptr($value);
        // SAFETY: `Shared::new` was promised a valid place. The read is volatile and takes one number, so that whoever writes at the same
        // time can only make it the old or the new one.
        unsafe { (&raw const (*value)$(.$field)+).read_volatile() }
    }};
    ($value:ident $(.$field:ident)+ [$index:expr]) => {{
        let (value, index) = ($crate::shared::Shared::as_ptr($value), $index);
        // SAFETY: as promised to `Shared::new`, and the index is checked. The read is volatile and takes one number, so that whoever writes
        // at the same time can only make it the old or the new one.
        unsafe { (&raw const (*value)$(.$field)+[index]).read_volatile() }
    }};
}
pub(crate) use get;

/// Writes a field of a [`Shared`], or an element of a field.
macro_rules! set {
    ($value:ident $(.$field:ident)+ = $new:expr) => {{
        let (value, new) = ($crate::shared::Shared::as_ptr($value), $new);
        // SAFETY: `Shared::new` was promised a valid place, which no reference points to. The write is volatile and of one number, so that
        // whoever reads at the same time reads the old or the new one.
        unsafe { (&raw mut (*value)$(.$field)+).write_volatile(new) }
    }};
    ($value:ident $(.$field:ident)+ [$index:expr] = $new:expr) => {{
        let (value, index, new) = ($crate::shared::Shared::as_ptr($value), $index, $new);
        // SAFETY: as promised to `Shared::new`, no reference points to the place, and the index is checked. The write is volatile and of one
        // number, so that whoever reads at the same time reads the old or the new one.
        unsafe { (&raw mut (*value)$(.$field)+[index]).write_volatile(new) }
    }};
}
pub(crate) use set;

/// Adds one to a field of a [`Shared`], or to an element of a field, that nobody else writes. Wraps around.
macro_rules! increment {
    ($value:ident $(.$field:ident)+) => {
        $crate::shared::set!($value$(.$field)+ = $crate::shared::get!($value$(.$field)+).wrapping_add(1))
    };
    ($value:ident $(.$field:ident)+ [$index:expr]) => {{
        let index = $index;
        $crate::shared::set!($value$(.$field)+[index] = $crate::shared::get!($value$(.$field)+[index]).wrapping_add(1))
    }};
}
pub(crate) use increment;

/// Adds to a field of a [`Shared`] that nobody else writes. Wraps around.
macro_rules! add {
    ($value:ident $(.$field:ident)+ += $more:expr) => {{
        let more = $more;
        $crate::shared::set!($value$(.$field)+ = $crate::shared::get!($value$(.$field)+).wrapping_add(more))
    }};
}
pub(crate) use add;
