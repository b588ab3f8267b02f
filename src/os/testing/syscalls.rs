//! Calls that tests make to act like other programs, for which there is no safe wrapper.
#![allow(unsafe_code, reason = "as in os/syscalls.rs")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// truncate(2): by name, without a handle.
pub(crate) fn truncate(path: &Path, length: i64) -> io::Result<()> {
    let path = c_path(path);
    // SAFETY: the string lives across the call.
    match unsafe { libc::truncate(path.as_ptr(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// setxattr(2), by name.
pub(crate) fn set_xattr(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::setxattr(path, c"user.x", b"1", rustix::fs::XattrFlags::empty())?)
}

/// getxattr(2), by name.
pub(crate) fn get_xattr(path: &Path) -> io::Result<()> {
    rustix::fs::getxattr(path, c"user.x", &mut [0_u8; 8])?;
    Ok(())
}

/// A socket of another user, with a queue of one. Needs root.
pub(crate) fn listen_as(user: u32, address: &SocketAddr) -> UnixListener {
    let address = address.clone();
    let listen = move || {
        // The kernel records the user of the thread that listens, and only this thread's changes.
        let user = rustix::process::Uid::from_raw(user);
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        listener
    };
    std::thread::spawn(listen).join().unwrap()
}

/// The handle of a file (`name_to_handle_at(2)`): `struct file_handle`, with room for the longest possible one.
#[repr(C)]
#[derive(Clone)]
pub(crate) struct FileHandle {
    bytes: u32,
    kind: i32,
    content: [u8; 128],
}

impl FileHandle {
    pub(crate) fn of(path: &Path) -> Self {
        let name = c_path(path);
        let (mut handle, mut mount) = (Self { bytes: 128, kind: 0, content: [0; 128] }, 0_i32);
        // SAFETY: all pointers are to values that live across the call, and `bytes` gives the room for the handle.
        let done = unsafe {
            let (cwd, name) = (libc::AT_FDCWD, name.as_ptr());
            let at = libc::SYS_name_to_handle_at;
            libc::syscall(at, cwd, name, &raw mut handle, &raw mut mount, 0)
        };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        handle
    }

    /// Opens the file in the mount that contains a directory, or returns the errno.
    pub(crate) fn open(&self, mount: &File, flags: i32) -> Result<File, i32> {
        let mut handle = self.clone();
        // SAFETY: as above.
        let fd = unsafe {
            let (mount, handle) = (mount.as_raw_fd(), &raw mut handle);
            libc::syscall(libc::SYS_open_by_handle_at, mount, handle, flags)
        };
        let fd = i32::try_from(fd).unwrap();
        if fd < 0 {
            return Err(io::Error::last_os_error().raw_os_error().unwrap());
        }
        // SAFETY: the descriptor was just opened, and nobody else has it.
        Ok(unsafe { File::from_raw_fd(fd) })
    }
}

/// `struct iocb` of `linux/aio_abi.h`, for little-endian machines.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct AioEvent {
    data: u64,
    request: u64,
    result: i64,
    more: i64,
}

const PWRITE: u16 = 1;

/// A context of the kernel's asynchronous I/O (`io_setup(2)`), for `DEPTH` requests at a time.
pub(crate) struct Aio<const DEPTH: usize>(u64);

impl<const DEPTH: usize> Aio<DEPTH> {
    pub(crate) fn new() -> Self {
        let mut context = 0_u64;
        // SAFETY: the pointer is to a value that lives across the call.
        let done = unsafe { libc::syscall(libc::SYS_io_setup, DEPTH, &raw mut context) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        Self(context)
    }

    /// Writes pieces, each at its offset, all at the same time, and waits for them.
    pub(crate) fn write(&self, file: &File, pieces: &[(usize, &[u8])]) {
        let request = |(at, piece): &(usize, &[u8])| Iocb {
            opcode: PWRITE,
            fd: file.as_raw_fd().cast_unsigned(),
            buffer: piece.as_ptr() as u64,
            bytes: piece.len() as u64,
            offset: i64::try_from(*at).unwrap(),
            ..Iocb::default()
        };
        let requests: Vec<Iocb> = pieces.iter().map(request).collect();
        let mut pointers: Vec<*const Iocb> = requests.iter().map(std::ptr::from_ref).collect();
        let count = requests.len();
        let mut events = [AioEvent::default(); DEPTH];
        // SAFETY: requests, buffers and events live until all requests are complete, which is before this returns.
        let (sent, back) = unsafe {
            let sent = libc::syscall(libc::SYS_io_submit, self.0, count, pointers.as_mut_ptr());
            let none = std::ptr::null_mut::<libc::timespec>();
            let events = events.as_mut_ptr();
            (sent, libc::syscall(libc::SYS_io_getevents, self.0, count, count, events, none))
        };
        assert_eq!((usize::try_from(sent), usize::try_from(back)), (Ok(count), Ok(count)));
        let written: i64 = events[..count].iter().map(|event| event.result).sum();
        assert_eq!(usize::try_from(written), Ok(pieces.iter().map(|(_, piece)| piece.len()).sum()));
    }
}

impl<const DEPTH: usize> Drop for Aio<DEPTH> {
    fn drop(&mut self) {
        // SAFETY: the context is ours, and nothing in it is in flight.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}
