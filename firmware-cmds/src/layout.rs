//! Declaring and reading the manual's structures.
//!
//! Every structure that the driver and the device exchange is a sequence of
//! big-endian dwords cut into named bit fields. [`prm!`](crate::prm) declares
//! one the way the manual prints it (byte offset of the dword, `[hi:lo]`, name)
//! and leaves three things behind: a zero-sized type that names the structure,
//! one typed constant a field, and a table of the fields
//! ([`Layout::FIELDS`]) from which traces are decoded, inputs are fuzzed and
//! the declaration itself is checked against the kernel's `mlx5_ifc.h`. The
//! block's own list of structures (`ALL`, beside them in the module) is what
//! that check walks, so a structure cannot be declared and left unchecked.
//!
//! No shift or mask is written outside this module: code reads
//! `ctx.get(Sqc::state)`.

use std::marker::PhantomData;

/// What a field of a structure holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Up to 32 bits inside one dword.
    Bits,
    /// Two dwords, high one first.
    U64,
    /// A run of bytes of fixed length.
    Bytes,
    /// Another structure (once, or an array of them).
    Sub,
    /// A list of unbounded length at the end of the structure; its width is
    /// that of one element.
    Tail,
}

/// One row of a structure's field table.
#[derive(Debug, Clone, Copy)]
pub struct FieldInfo {
    /// The kernel's name of the field.
    pub name: &'static str,
    /// Offset from the start of the structure in bits, most significant first.
    pub bit: u32,
    /// Width in bits (of one element where `kind` is [`Kind::Tail`]).
    pub width: u32,
    /// What the bits are.
    pub kind: Kind,
    /// The nested structure, where `kind` is [`Kind::Sub`] or a tail of them.
    pub sub: Option<fn() -> Info>,
    /// How many elements follow one another (1 for a plain field).
    pub count: u32,
}

/// A structure as data: what trace, fuzzers and the layout check read.
#[derive(Debug, Clone, Copy)]
pub struct Info {
    /// The kernel's name: `struct mlx5_ifc_NAME_bits`.
    pub name: &'static str,
    /// Size of the fixed part in bytes.
    pub size: usize,
    /// Fields in declaration order.
    pub fields: &'static [FieldInfo],
}

/// A field's name without the `r#` that keeps it apart from a Rust keyword.
pub const fn plain_name(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// A structure declared with [`prm!`](crate::prm).
pub trait Layout: 'static {
    /// The kernel's name: `struct mlx5_ifc_NAME_bits`.
    const NAME: &'static str;
    /// Size of the fixed part in bytes.
    const SIZE: usize;
    /// Fields in declaration order.
    const FIELDS: &'static [FieldInfo];
    /// The structure as data.
    fn info() -> Info {
        Info { name: Self::NAME, size: Self::SIZE, fields: Self::FIELDS }
    }
}

macro_rules! field_type {
    ($(#[$m:meta])* $name:ident { $($f:ident),* } <$($g:ident),*>) => {
        $(#[$m])*
        pub struct $name<$($g),*> { $($f: u32,)* of: PhantomData<fn() -> ($($g,)*)> }
        impl<$($g),*> Clone for $name<$($g),*> { fn clone(&self) -> Self { *self } }
        impl<$($g),*> Copy for $name<$($g),*> {}
        impl<$($g),*> $name<$($g),*> {
            /// Used by [`prm!`](crate::prm).
            pub const fn at($($f: u32),*) -> Self { Self { $($f,)* of: PhantomData } }
        }
    };
}
field_type! {
    /// A field of up to 32 bits of structure `S`: bit offset and width.
    Field { bit, width } <S>
}
field_type! {
    /// A field of 64 bits of structure `S`: byte offset.
    Field64 { off } <S>
}
field_type! {
    /// A run of bytes of structure `S`: byte offset and length.
    Bytes { off, len } <S>
}
field_type! {
    /// A structure `T` (or an array of `count`) inside `S`: byte offset.
    Sub { off, count } <S, T>
}
field_type! {
    /// A list without fixed end that starts at a byte offset of `S`.
    Tail { off, elem } <S>
}

impl<S> Field<S> {
    /// Offset from the start of the structure in bits, most significant first.
    pub const fn bit(&self) -> u32 {
        self.bit
    }
    /// Width in bits.
    pub const fn width(&self) -> u32 {
        self.width
    }
    /// All ones, as wide as the field.
    pub const fn max(&self) -> u32 {
        ones(self.width)
    }
    /// Index of the dword that holds the field.
    pub const fn dword(&self) -> usize {
        (self.bit / 32) as usize
    }
    /// The field's bits inside its dword.
    pub const fn mask(&self) -> u32 {
        ones(self.width) << self.shift()
    }
    const fn shift(&self) -> u32 {
        32 - self.bit % 32 - self.width
    }
    /// Takes the field out of the dword that holds it.
    pub const fn of_dword(&self, dword: u32) -> u32 {
        (dword >> self.shift()) & ones(self.width)
    }
    /// Puts a value (cut to the field's width) into the dword that holds it.
    pub const fn in_dword(&self, dword: u32, value: u32) -> u32 {
        (dword & !self.mask()) | ((value & ones(self.width)) << self.shift())
    }
}

impl<S> Field64<S> {
    /// Byte offset in the structure.
    pub const fn offset(&self) -> usize {
        self.off as usize
    }
}

impl<S> Tail<S> {
    /// Byte offset in the structure.
    pub const fn offset(&self) -> usize {
        self.off as usize
    }
    /// Bytes of one element.
    pub const fn element(&self) -> usize {
        self.elem as usize
    }
}

impl<S> Bytes<S> {
    /// How many bytes there are.
    pub const fn count(&self) -> usize {
        self.len as usize
    }
    /// Byte offset in the structure.
    pub const fn offset(&self) -> usize {
        self.off as usize
    }
}

impl<S, T> Sub<S, T> {
    /// How many of them follow one another.
    pub const fn count(&self) -> usize {
        self.count as usize
    }
    /// Byte offset in the structure.
    pub const fn offset(&self) -> usize {
        self.off as usize
    }
}

const fn ones(width: u32) -> u32 {
    if width >= 32 { u32::MAX } else { (1 << width) - 1 }
}

fn dword_at(buf: &[u8], off: usize) -> u32 {
    match buf.get(off..off + 4) {
        Some(b) => u32::from_be_bytes([b[0], b[1], b[2], b[3]]),
        None => 0,
    }
}

/// A structure read from bytes.
///
/// Bytes past the end of the buffer read as zero, so a short buffer is never
/// an error here; whoever takes input from a guest checks lengths first.
pub struct View<'a, S> {
    buf: &'a [u8],
    of: PhantomData<fn() -> S>,
}

impl<S> Clone for View<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for View<'_, S> {}

impl<'a, S: Layout> View<'a, S> {
    /// Looks at `buf` as a `S`.
    pub const fn new(buf: &'a [u8]) -> Self {
        Self { buf, of: PhantomData }
    }
    /// A field of up to 32 bits.
    pub fn get(&self, f: Field<S>) -> u32 {
        f.of_dword(dword_at(self.buf, f.dword() * 4))
    }
    /// Whether a field is not zero.
    pub fn is(&self, f: Field<S>) -> bool {
        self.get(f) != 0
    }
    /// A field of 64 bits.
    pub fn get64(&self, f: Field64<S>) -> u64 {
        let off = f.off as usize;
        (u64::from(dword_at(self.buf, off)) << 32) | u64::from(dword_at(self.buf, off + 4))
    }
    /// The bytes of a field; shorter where the buffer ends early.
    pub fn bytes(&self, f: Bytes<S>) -> &'a [u8] {
        window(self.buf, f.off as usize, f.len as usize)
    }
    /// A nested structure.
    pub fn sub<T: Layout>(&self, f: Sub<S, T>) -> View<'a, T> {
        View::new(window(self.buf, f.off as usize, T::SIZE))
    }
    /// A nested structure together with everything behind it.
    pub fn sub_open<T: Layout>(&self, f: Sub<S, T>) -> View<'a, T> {
        View::new(self.buf.get(f.off as usize..).unwrap_or(&[]))
    }
    /// Element `i` of an array of nested structures.
    pub fn sub_at<T: Layout>(&self, f: Sub<S, T>, i: usize) -> View<'a, T> {
        View::new(window(self.buf, f.off as usize + i * T::SIZE, T::SIZE))
    }
    /// Everything from the start of a list to the end of the buffer.
    pub fn tail(&self, f: Tail<S>) -> &'a [u8] {
        self.buf.get(f.off as usize..).unwrap_or(&[])
    }
    /// The elements of a list of 64-bit values, as many as the buffer holds.
    pub fn tail64(&self, f: Tail<S>) -> impl Iterator<Item = u64> + 'a {
        self.tail(f).as_chunks::<8>().0.iter().map(|c| u64::from_be_bytes(*c))
    }
    /// The elements of a list of 32-bit values, as many as the buffer holds.
    pub fn tail32(&self, f: Tail<S>) -> impl Iterator<Item = u32> + 'a {
        self.tail(f).as_chunks::<4>().0.iter().map(|c| u32::from_be_bytes(*c))
    }
    /// The bytes behind the view.
    pub const fn raw(&self) -> &'a [u8] {
        self.buf
    }
}

fn window(buf: &[u8], off: usize, len: usize) -> &[u8] {
    let end = buf.len().min(off.saturating_add(len));
    buf.get(off..end).unwrap_or(&[])
}

/// A structure being written.
///
/// Writes past the end of the buffer are dropped: an answer is cut to the
/// length that the driver asked for.
pub struct ViewMut<'a, S> {
    buf: &'a mut [u8],
    of: PhantomData<fn() -> S>,
}

impl<'a, S: Layout> ViewMut<'a, S> {
    /// Writes into `buf` as a `S`.
    pub const fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, of: PhantomData }
    }
    /// Reads what has been written.
    pub const fn as_view(&self) -> View<'_, S> {
        View::new(self.buf)
    }
    /// Sets a field of up to 32 bits. The value must fit: a wider one is a
    /// fault of ours, caught in debug builds and cut in release builds.
    pub fn set(&mut self, f: Field<S>, value: u32) -> &mut Self {
        debug_assert!(value <= f.max(), "{value:#x} does not fit {} bits of {}", f.width, S::NAME);
        let off = f.dword() * 4;
        let d = f.in_dword(dword_at(self.buf, off), value);
        self.put(off, &d.to_be_bytes());
        self
    }
    /// Sets a field of 64 bits.
    pub fn set64(&mut self, f: Field64<S>, value: u64) -> &mut Self {
        self.put(f.off as usize, &value.to_be_bytes());
        self
    }
    /// Writes a field of bytes; a shorter value leaves the rest as it is.
    pub fn set_bytes(&mut self, f: Bytes<S>, value: &[u8]) -> &mut Self {
        let n = value.len().min(f.len as usize);
        self.put(f.off as usize, &value[..n]);
        self
    }
    /// A nested structure.
    pub fn sub<T: Layout>(&mut self, f: Sub<S, T>) -> ViewMut<'_, T> {
        self.sub_at(f, 0)
    }
    /// Element `i` of an array of nested structures.
    pub fn sub_at<T: Layout>(&mut self, f: Sub<S, T>, i: usize) -> ViewMut<'_, T> {
        let len = self.buf.len();
        let off = (f.off as usize + i * T::SIZE).min(len);
        let end = (off + T::SIZE).min(len);
        ViewMut::new(&mut self.buf[off..end])
    }
    /// Writes bytes into a list.
    pub fn set_tail(&mut self, f: Tail<S>, at: usize, value: &[u8]) -> &mut Self {
        self.put(f.off as usize + at, value);
        self
    }
    /// Everything from the start of a list to the end of the buffer.
    pub fn tail(&mut self, f: Tail<S>) -> &mut [u8] {
        self.buf.get_mut(f.off as usize..).unwrap_or(&mut [])
    }
    /// The bytes behind the view.
    pub const fn raw(&mut self) -> &mut [u8] {
        self.buf
    }
    fn put(&mut self, off: usize, value: &[u8]) {
        let len = self.buf.len();
        if off < len {
            let end = len.min(off + value.len());
            self.buf[off..end].copy_from_slice(&value[..end - off]);
        }
    }
}

/// Declares structures of the manual, one block a module: the block also
/// leaves `ALL` behind, the list of the structures declared in it.
///
/// ```
/// use sfnic_firmware_cmds::{layout::{Layout, View}, prm};
/// prm! {
///     /// A thing.
///     thing / Thing : 0x10 {
///         0x00 [31:28] state;      // bits of the dword at 0x00
///         0x00 [23:0]  number;
///         0x08 [u64]   address;    // two dwords
///     }
/// }
/// let bytes = [0x30, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
/// let v = View::<Thing>::new(&bytes);
/// assert_eq!((v.get(Thing::state), v.get(Thing::number)), (3, 7));
/// assert_eq!(v.get64(Thing::address), 1 << 32);
/// ```
///
/// Field forms: `[hi:lo]` bits of a dword, `[u64]`, `[u8; N]` bytes,
/// `[sub] name: Type` a nested structure, `[sub; N] name: Type` an array,
/// `[u32..]`, `[u64..]`, `[u8..]` a list that runs to the end.
#[macro_export]
macro_rules! prm {
    ($($(#[$doc:meta])* $name:ident / $ty:ident : $size:literal { $($off:literal [$($spec:tt)+] $field:ident $(: $sub:ty)? ;)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $ty;
        #[allow(non_upper_case_globals, missing_docs)]
        impl $ty { $($crate::prm!(@const $ty $size $off [$($spec)+] $field $($sub)?);)* }
        impl $crate::layout::Layout for $ty {
            const NAME: &'static str = stringify!($name);
            const SIZE: usize = $size;
            const FIELDS: &'static [$crate::layout::FieldInfo] =
                &[$($crate::prm!(@info $off [$($spec)+] $field $($sub)?)),*];
        }
    )*
        /// Every structure that this module declares.
        #[allow(dead_code, unreachable_pub)]
        pub const ALL: &[fn() -> $crate::layout::Info] = &[$(<$ty as $crate::layout::Layout>::info),*];
    };

    (@const $ty:ident $size:literal $off:literal [$hi:literal : $lo:literal] $f:ident) => {
        pub const $f: $crate::layout::Field<$ty> = {
            assert!($hi >= $lo && $hi < 32 && $off % 4 == 0 && $off + 4 <= $size, "field outside its structure");
            $crate::layout::Field::at($off * 8 + 31 - $hi, $hi - $lo + 1)
        };
    };
    (@const $ty:ident $size:literal $off:literal [u64] $f:ident) => {
        pub const $f: $crate::layout::Field64<$ty> = {
            assert!($off + 8 <= $size, "field outside its structure");
            $crate::layout::Field64::at($off)
        };
    };
    (@const $ty:ident $size:literal $off:literal [u8; $n:literal] $f:ident) => {
        pub const $f: $crate::layout::Bytes<$ty> = {
            assert!($off + $n <= $size, "field outside its structure");
            $crate::layout::Bytes::at($off, $n)
        };
    };
    (@const $ty:ident $size:literal $off:literal [sub] $f:ident $sub:ty) => {
        $crate::prm!(@const $ty $size $off [sub; 1] $f $sub);
    };
    (@const $ty:ident $size:literal $off:literal [sub; $n:literal] $f:ident $sub:ty) => {
        pub const $f: $crate::layout::Sub<$ty, $sub> = {
            assert!($off + $n * <$sub as $crate::layout::Layout>::SIZE <= $size, "structure outside its structure");
            $crate::layout::Sub::at($off, $n)
        };
    };
    (@const $ty:ident $size:literal $off:literal [$e:ident ..] $f:ident) => {
        pub const $f: $crate::layout::Tail<$ty> =
            $crate::layout::Tail::at($off, ::core::mem::size_of::<$e>() as u32);
    };

    (@info $off:literal [$hi:literal : $lo:literal] $f:ident) => {
        $crate::layout::FieldInfo { name: $crate::layout::plain_name(stringify!($f)), bit: $off * 8 + 31 - $hi, width: $hi - $lo + 1,
            kind: $crate::layout::Kind::Bits, sub: None, count: 1 }
    };
    (@info $off:literal [u64] $f:ident) => {
        $crate::layout::FieldInfo { name: $crate::layout::plain_name(stringify!($f)), bit: $off * 8, width: 64,
            kind: $crate::layout::Kind::U64, sub: None, count: 1 }
    };
    (@info $off:literal [u8; $n:literal] $f:ident) => {
        $crate::layout::FieldInfo { name: $crate::layout::plain_name(stringify!($f)), bit: $off * 8, width: $n * 8,
            kind: $crate::layout::Kind::Bytes, sub: None, count: 1 }
    };
    (@info $off:literal [sub] $f:ident $sub:ty) => { $crate::prm!(@info $off [sub; 1] $f $sub) };
    (@info $off:literal [sub; $n:literal] $f:ident $sub:ty) => {
        $crate::layout::FieldInfo { name: $crate::layout::plain_name(stringify!($f)), bit: $off * 8,
            width: $n * <$sub as $crate::layout::Layout>::SIZE as u32 * 8,
            kind: $crate::layout::Kind::Sub, sub: Some(<$sub as $crate::layout::Layout>::info), count: $n }
    };
    (@info $off:literal [$e:ident ..] $f:ident) => {
        $crate::layout::FieldInfo { name: $crate::layout::plain_name(stringify!($f)), bit: $off * 8,
            width: ::core::mem::size_of::<$e>() as u32 * 8,
            kind: $crate::layout::Kind::Tail, sub: None, count: 0 }
    };
}
