//! A disk that fails, under SQLite: it loses power, tears writes, refuses to sync, is full for a moment.
//!
//! SQLite takes its file system as a table of functions (a VFS). This one passes everything on to the
//! usual one and keeps, for the files below directories that a test names, what a disk would hold if
//! power went now: what was synced, and of the rest whatever chance leaves. A failed sync loses what it
//! should have made durable, as on Linux, though reads still show it.
#![expect(unsafe_code, reason = "SQLite calls a file system through C functions")]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs;
use std::mem::size_of;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};

use rusqlite::ffi;

/// What goes wrong at one operation (a write, a cut of the length, a sync).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Power goes; everything unsynced is lost.
    PowerCut,
    /// Power goes; of each unsynced sector chance decides, also within a write.
    TornWrites,
    /// The operation fails; later ones work. A sync that fails loses what it should have kept.
    InputOutput,
    /// Half is written, then the disk is full; later there is room again.
    Full,
    /// From here on the file system can only be read.
    ReadOnly,
}

/// The smallest piece that a disk writes whole.
const SECTOR: usize = 512;

/// The disk below one directory.
pub(crate) struct Disk {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    operations: u64,
    fault: Option<(u64, Fault)>,
    struck: bool,
    without_power: bool,
    files: HashMap<PathBuf, Content>,
}

#[derive(Default)]
struct Content {
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

enum Pending {
    Write { at: usize, bytes: Vec<u8> },
    Cut { length: usize },
}

/// What an operation asks for.
enum Operation<'a> {
    Write { at: usize, bytes: &'a [u8] },
    Cut { length: usize },
    Sync,
}

/// What becomes of an operation.
enum Verdict {
    Done,
    Fails(c_int),
    HalfDone(c_int),
}

/// Draws that are the same for the same seed (splitmix64).
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

fn overwrite(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Pending {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => overwrite(image, *at, bytes),
            Self::Cut { length } => image.truncate(*length),
        }
    }

    fn apply_by_chance(&self, image: &mut Vec<u8>, draws: &mut Draws) {
        match self {
            Self::Write { at, bytes } => {
                for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                    if draws.coin() {
                        overwrite(image, at + number * SECTOR, sector);
                    }
                }
            }
            Self::Cut { .. } if draws.coin() => self.apply(image),
            Self::Cut { .. } => {}
        }
    }
}

impl Content {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.pending.push(Pending::Write { at, bytes: bytes.to_vec() });
    }

    fn sync(&mut self) {
        for pending in self.pending.drain(..) {
            pending.apply(&mut self.durable);
        }
    }
}

impl Disk {
    /// A disk below a directory, with what is there now. The fault strikes at the nth operation; the
    /// first one is 1.
    pub(crate) fn mount(dir: &Path, fault: Option<(u64, Fault)>) -> Arc<Self> {
        register();
        let dir = dir.canonicalize().unwrap();
        let mut state = State { fault, ..State::default() };
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && !path.to_string_lossy().ends_with("-shm") {
                let durable = fs::read(&path).unwrap();
                state.files.insert(path, Content { durable, pending: Vec::new() });
            }
        }
        let disk = Arc::new(Self { dir: dir.clone(), state: Mutex::new(state) });
        disks().insert(dir, Arc::clone(&disk));
        disk
    }

    /// The operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Whether the fault has struck.
    pub(crate) fn has_struck(&self) -> bool {
        self.state().struck
    }

    /// Power goes now, and nothing works until the next [`Disk::mount`].
    pub(crate) fn cut_power(&self) {
        self.state().without_power = true;
    }

    /// Makes the files what the disk holds after a loss of power. Nobody may have them open.
    pub(crate) fn unmount(&self, seed: u64) {
        disks().remove(&self.dir);
        let state = self.state();
        if !state.without_power {
            return;
        }
        let torn = matches!(state.fault, Some((_, Fault::TornWrites)));
        let mut draws = Draws::new(seed);
        // In the order of their names: a map has none, and draws must be the same again.
        let mut files: Vec<_> = state.files.iter().collect();
        files.sort_by_key(|(path, _)| path.as_path());
        for (path, content) in files {
            let mut image = content.durable.clone();
            if torn {
                content.pending.iter().for_each(|it| it.apply_by_chance(&mut image, &mut draws));
            }
            fs::write(path, image).unwrap();
        }
        for entry in fs::read_dir(&self.dir).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().ends_with("-shm") {
                fs::remove_file(path).unwrap();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn operate(&self, path: &Path, operation: &Operation<'_>) -> Verdict {
        let mut state = self.state();
        if state.without_power {
            return Verdict::Fails(ffi::SQLITE_IOERR);
        }
        state.operations += 1;
        let strikes = state.fault.filter(|(at, fault)| match fault {
            Fault::ReadOnly => *at <= state.operations,
            _ => *at == state.operations,
        });
        state.struck |= strikes.is_some();
        let strikes = strikes.map(|(_, fault)| fault);
        state.without_power |= matches!(strikes, Some(Fault::PowerCut | Fault::TornWrites));
        let content = state.files.entry(path.to_owned()).or_default();
        match (operation, strikes) {
            (Operation::Write { at, bytes }, None) => content.write(*at, bytes),
            (Operation::Cut { length }, None) => {
                content.pending.push(Pending::Cut { length: *length });
            }
            (Operation::Sync, None) => content.sync(),
            (_, Some(Fault::ReadOnly)) => return Verdict::Fails(ffi::SQLITE_READONLY),
            // Power went while this was written: it may be there, or a part of it.
            (Operation::Write { at, bytes }, Some(Fault::TornWrites)) => {
                content.write(*at, bytes);
                return Verdict::Fails(ffi::SQLITE_IOERR);
            }
            (Operation::Write { at, bytes }, Some(Fault::Full)) => {
                content.write(*at, &bytes[..bytes.len() / 2]);
                return Verdict::HalfDone(ffi::SQLITE_FULL);
            }
            (Operation::Write { .. }, Some(_)) => return Verdict::Fails(ffi::SQLITE_IOERR_WRITE),
            (Operation::Cut { .. }, Some(_)) => return Verdict::Fails(ffi::SQLITE_IOERR_TRUNCATE),
            (Operation::Sync, Some(fault)) => {
                if matches!(fault, Fault::InputOutput | Fault::Full) {
                    content.pending.clear();
                }
                return Verdict::Fails(ffi::SQLITE_IOERR_FSYNC);
            }
        }
        Verdict::Done
    }

    fn remove(&self, path: &Path) -> bool {
        let mut state = self.state();
        if !state.without_power {
            state.files.remove(path);
        }
        !state.without_power
    }
}

fn disks() -> MutexGuard<'static, HashMap<PathBuf, Arc<Disk>>> {
    static DISKS: OnceLock<Mutex<HashMap<PathBuf, Arc<Disk>>>> = OnceLock::new();
    DISKS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

fn disk_of(path: &Path) -> Option<Arc<Disk>> {
    disks().get(path.parent()?).cloned()
}

/// An open file: SQLite's part, ours, and behind it the file of the usual file system.
#[repr(C)]
struct File {
    sqlite: ffi::sqlite3_file,
    disk: *const OnDisk,
}

struct OnDisk {
    disk: Arc<Disk>,
    path: PathBuf,
}

const OURS: usize = size_of::<File>().next_multiple_of(16);

/// The usual file system.
fn usual() -> *mut ffi::sqlite3_vfs {
    static USUAL: OnceLock<usize> = OnceLock::new();
    // SAFETY: SQLite keeps its file systems for as long as the process lives.
    let find = || unsafe { ffi::sqlite3_vfs_find(c"unix".as_ptr()) } as usize;
    *USUAL.get_or_init(find) as *mut ffi::sqlite3_vfs
}

fn register() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: the usual file system lives for ever, and so does the copy, which is leaked.
        unsafe {
            assert_eq!(ffi::sqlite3_initialize(), ffi::SQLITE_OK);
            let mut vfs = *usual();
            vfs.zName = c"lakeops-failing-disk".as_ptr();
            vfs.pNext = std::ptr::null_mut();
            vfs.szOsFile += c_int::try_from(OURS).unwrap();
            vfs.xOpen = Some(open);
            vfs.xDelete = Some(delete);
            let vfs = Box::leak(Box::new(vfs));
            assert_eq!(ffi::sqlite3_vfs_register(vfs, 1), ffi::SQLITE_OK);
        }
    });
}

/// Calls the function of the same name of the usual file.
macro_rules! pass_on {
    ($name:ident($($arg:ident: $type:ty),*)) => {{
        unsafe extern "C" fn call(file: *mut ffi::sqlite3_file, $($arg: $type),*) -> c_int {
            // SAFETY: `open` succeeded, so the usual file has its table of functions.
            unsafe {
                let real = real(file);
                let Some(function) = (*(*real).pMethods).$name else { return ffi::SQLITE_IOERR };
                function(real, $($arg),*)
            }
        }
        Some(call)
    }};
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: pass_on!(xFileSize(size: *mut ffi::sqlite3_int64)),
    xLock: pass_on!(xLock(level: c_int)),
    xUnlock: pass_on!(xUnlock(level: c_int)),
    xCheckReservedLock: pass_on!(xCheckReservedLock(out: *mut c_int)),
    xFileControl: pass_on!(xFileControl(op: c_int, arg: *mut c_void)),
    xSectorSize: pass_on!(xSectorSize()),
    xDeviceCharacteristics: pass_on!(xDeviceCharacteristics()),
    xShmMap: pass_on!(xShmMap(page: c_int, size: c_int, extend: c_int, out: *mut *mut c_void)),
    xShmLock: pass_on!(xShmLock(offset: c_int, n: c_int, flags: c_int)),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: pass_on!(xShmUnmap(delete: c_int)),
    xFetch: None,
    xUnfetch: None,
};

/// The usual file behind ours.
///
/// # Safety
/// `file` was opened by [`open`].
unsafe fn real(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: SQLite allocates as many bytes as `szOsFile` says, which is ours and the usual ones.
    unsafe { file.cast::<u8>().add(OURS) }.cast()
}

/// # Safety
/// `file` was opened by [`open`] and is not closed yet.
unsafe fn on_disk<'a>(file: *mut ffi::sqlite3_file) -> Option<&'a OnDisk> {
    // SAFETY: `open` put a leaked box or null there, which `close` takes back.
    unsafe { (*file.cast::<File>()).disk.as_ref() }
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives us `szOsFile` bytes and, except for temporary files, a name.
    unsafe {
        (*file).pMethods = std::ptr::null();
        let path = (!name.is_null())
            .then(|| PathBuf::from(CStr::from_ptr(name).to_string_lossy().into_owned()));
        let disk = path.as_deref().and_then(disk_of);
        if disk.as_ref().is_some_and(|disk| disk.state().without_power) {
            return ffi::SQLITE_CANTOPEN;
        }
        let Some(function) = (*usual()).xOpen else { return ffi::SQLITE_CANTOPEN };
        let code = function(usual(), name, real(file), flags, out);
        if code == ffi::SQLITE_OK {
            let on_disk = disk.zip(path).map(|(disk, path)| OnDisk { disk, path });
            (*file.cast::<File>()).disk =
                on_disk.map_or(std::ptr::null(), |it| Box::into_raw(Box::new(it)).cast_const());
            (*file).pMethods = &raw const METHODS;
        }
        code
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: the box came from `open`; SQLite closes a file once.
    unsafe {
        let disk = (*file.cast::<File>()).disk.cast_mut();
        if !disk.is_null() {
            drop(Box::from_raw(disk));
        }
        let real = real(file);
        (*(*real).pMethods).xClose.map_or(ffi::SQLITE_OK, |function| function(real))
    }
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    amount: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: as for `pass_on`.
    unsafe {
        if on_disk(file).is_some_and(|it| it.disk.state().without_power) {
            return ffi::SQLITE_IOERR_READ;
        }
        let real = real(file);
        let Some(function) = (*(*real).pMethods).xRead else { return ffi::SQLITE_IOERR_READ };
        function(real, to, amount, at)
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    amount: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: `from` holds `amount` bytes; the rest as for `pass_on`.
    unsafe {
        let (mut amount, mut failing) = (amount, None);
        if let Some(it) = on_disk(file) {
            let length = usize::try_from(amount).unwrap_or(0);
            let bytes = std::slice::from_raw_parts(from.cast::<u8>(), length);
            let place = usize::try_from(at).unwrap_or(0);
            match it.disk.operate(&it.path, &Operation::Write { at: place, bytes }) {
                Verdict::Done => {}
                Verdict::Fails(code) => return code,
                Verdict::HalfDone(code) => (amount, failing) = (amount / 2, Some(code)),
            }
        }
        let real = real(file);
        let Some(function) = (*(*real).pMethods).xWrite else { return ffi::SQLITE_IOERR_WRITE };
        let code = function(real, from, amount, at);
        failing.unwrap_or(code)
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: as for `pass_on`.
    unsafe {
        if let Some(it) = on_disk(file) {
            let length = usize::try_from(size).unwrap_or(0);
            if let Verdict::Fails(code) = it.disk.operate(&it.path, &Operation::Cut { length }) {
                return code;
            }
        }
        let real = real(file);
        let Some(function) = (*(*real).pMethods).xTruncate else { return ffi::SQLITE_IOERR };
        function(real, size)
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: as for `pass_on`.
    unsafe {
        if let Some(it) = on_disk(file) {
            // The real disk needs no sync: what would be there is kept in memory.
            return match it.disk.operate(&it.path, &Operation::Sync) {
                Verdict::Done => ffi::SQLITE_OK,
                Verdict::Fails(code) | Verdict::HalfDone(code) => code,
            };
        }
        let real = real(file);
        (*(*real).pMethods).xSync.map_or(ffi::SQLITE_OK, |function| function(real, flags))
    }
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: as for `pass_on`.
    unsafe {
        let real = real(file);
        if let Some(function) = (*(*real).pMethods).xShmBarrier {
            function(real);
        }
    }
}

unsafe extern "C" fn delete(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_dir: c_int,
) -> c_int {
    // SAFETY: SQLite gives a name that ends with a zero.
    unsafe {
        let path = PathBuf::from(CStr::from_ptr(name).to_string_lossy().into_owned());
        if disk_of(&path).is_some_and(|disk| !disk.remove(&path)) {
            return ffi::SQLITE_IOERR_DELETE;
        }
        let Some(function) = (*usual()).xDelete else { return ffi::SQLITE_IOERR_DELETE };
        function(usual(), name, sync_dir)
    }
}
