//! The JVM's skin: every entry from Java (`gillnet.host.Native`) is here. No logic.
//!
//! A handle is the address of a box; Java closes each one once, and never uses it again (`gillnet.host.Flow` and its like see to
//! that). Errors and panics become a `gillnet.host.KernelException`: a fault here must not take a TaskManager with it.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use gillnet_flow::frame::{Chunk, OutRecords};
use gillnet_flow::{Counts, Flow, Intake, Program};
use jni::objects::{JByteArray, JClass, JLongArray, JObjectArray, JString};
use jni::sys::{jint, jlong};
use jni::JNIEnv;

const EXCEPTION: &str = "gillnet/host/KernelException";

type Told<T> = Result<T, String>;

/// Run what may fail; on an error throw, and give what stands for nothing.
fn guarded<'local, T: Default>(env: &mut JNIEnv<'local>, run: impl FnOnce(&mut JNIEnv<'local>) -> Told<T>) -> T {
    let told = match catch_unwind(AssertUnwindSafe(|| run(env))) {
        Ok(Ok(done)) => return done,
        Ok(Err(told)) => told,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of an unknown cause");
            format!("a fault of Gillnet: panic {text}. Please report it with the definition")
        }
    };
    // If even this fails, an exception is pending already, and Java sees that one.
    let _ = env.throw_new(EXCEPTION, told);
    T::default()
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn bytes(env: &JNIEnv<'_>, array: &JByteArray<'_>) -> Told<Vec<u8>> {
    env.convert_byte_array(array).map_err(told)
}

fn array<'local>(env: &JNIEnv<'local>, bytes: &[u8]) -> Told<JByteArray<'local>> {
    env.byte_array_from_slice(bytes).map_err(told)
}

fn handle<T>(value: T) -> jlong {
    Box::into_raw(Box::new(value)) as jlong
}

/// What a handle stands for.
///
/// # Safety
/// The handle is one that [`handle`] gave for a `T`, it was not closed, and no other thread uses it: Java's side keeps to that.
unsafe fn held<'a, T>(handle: jlong) -> &'a mut T {
    // SAFETY: as above.
    unsafe { &mut *(handle as *mut T) }
}

fn close<T>(handle: jlong) {
    if handle != 0 {
        // SAFETY: Java's side closes a handle once, and does not use it afterwards.
        drop(unsafe { Box::from_raw(handle as *mut T) });
    }
}

fn step<'local>(
    env: &mut JNIEnv<'local>,
    flow: jlong,
    take: impl FnOnce(&mut Flow, &mut OutRecords) -> gillnet_flow::Result<()>,
) -> Told<JByteArray<'local>> {
    let mut out = OutRecords::default();
    // SAFETY: a flow's handle, used by its task's thread alone.
    take(unsafe { held(flow) }, &mut out).map_err(told)?;
    array(env, &out.finish())
}

#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_openProgram<'local>(
    mut env: JNIEnv<'local>,
    _: JClass<'local>,
    json: JByteArray<'local>,
) -> jlong {
    guarded(&mut env, |env| {
        let program = Program::from_json(&bytes(env, &json)?).map_err(told)?;
        Ok(handle(Arc::new(program)))
    })
}

#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_outputs<'local>(
    mut env: JNIEnv<'local>,
    _: JClass<'local>,
    program: jlong,
) -> JObjectArray<'local> {
    guarded(&mut env, |env| {
        // SAFETY: a program's handle; programs are not changed.
        let program: &Arc<Program> = unsafe { held(program) };
        let names = program.outputs();
        let empty = JString::default();
        let array = env.new_object_array(names.len() as jint, "java/lang/String", &empty).map_err(told)?;
        for (place, name) in names.iter().enumerate() {
            let name = env.new_string(name).map_err(told)?;
            env.set_object_array_element(&array, place as jint, name).map_err(told)?;
        }
        Ok(array)
    })
}

#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_closeProgram(_: JNIEnv<'_>, _: JClass<'_>, program: jlong) {
    close::<Arc<Program>>(program);
}

#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_openIntake<'local>(
    mut env: JNIEnv<'local>,
    _: JClass<'local>,
    program: jlong,
    stream: jint,
    shards: jint,
    tell_all_us: jlong,
) -> jlong {
    guarded(&mut env, |_| {
        // SAFETY: a program's handle; programs are not changed.
        let program: &Arc<Program> = unsafe { held(program) };
        let intake = Intake::new(program, stream as u16, shards as u32, tell_all_us).map_err(told)?;
        Ok(handle(intake))
    })
}

/// Malformed records (`i64`), the slowest partition's newest event time (`i64`, the least where there is none), the length of the
/// frame of malformed records (`u32`) and that frame, then for each chunk its shard, its length (`u32`) and its bytes.
#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_share<'local>(
    mut env: JNIEnv<'local>,
    _: JClass<'local>,
    intake: jlong,
    chunk: JByteArray<'local>,
) -> JByteArray<'local> {
    guarded(&mut env, |env| {
        let chunk = bytes(env, &chunk)?;
        // SAFETY: an intake's handle, used by its task's thread alone.
        let intake: &mut Intake = unsafe { held(intake) };
        let shared = intake.share(&Chunk::read(&chunk).map_err(told)?).map_err(told)?;
        let mut out = Vec::with_capacity(chunk.len() + 64 * shared.chunks.len());
        out.extend_from_slice(&(shared.malformed as i64).to_le_bytes());
        out.extend_from_slice(&shared.slowest.unwrap_or(i64::MIN).to_le_bytes());
        let aside = shared.aside.finish();
        out.extend_from_slice(&(aside.len() as u32).to_le_bytes());
        out.extend_from_slice(&aside);
        for (shard, part) in shared.chunks {
            out.extend_from_slice(&shard.to_le_bytes());
            out.extend_from_slice(&(part.len() as u32).to_le_bytes());
            out.extend_from_slice(&part);
        }
        array(env, &out)
    })
}

#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_closeIntake(_: JNIEnv<'_>, _: JClass<'_>, intake: jlong) {
    close::<Intake>(intake);
}

#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_openFlow<'local>(
    mut env: JNIEnv<'local>,
    _: JClass<'local>,
    program: jlong,
    state: JByteArray<'local>,
) -> jlong {
    guarded(&mut env, |env| {
        // SAFETY: a program's handle; programs are not changed.
        let program: &Arc<Program> = unsafe { held(program) };
        let flow = match state.is_null() {
            true => Flow::new(program),
            false => Flow::restore(program, &bytes(env, &state)?),
        };
        Ok(handle(flow.map_err(told)?))
    })
}

#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_register<'local>(
    mut env: JNIEnv<'local>,
    _: JClass<'local>,
    flow: jlong,
    stream: jint,
    partition: jint,
    now_us: jlong,
) {
    guarded(&mut env, |_| {
        // SAFETY: a flow's handle, used by its task's thread alone.
        let flow: &mut Flow = unsafe { held(flow) };
        flow.register(stream as u16, partition, now_us).map_err(told)
    });
}

#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_resume(_: JNIEnv<'_>, _: JClass<'_>, flow: jlong, now_us: jlong) {
    // SAFETY: a flow's handle, used by its task's thread alone.
    unsafe { held::<Flow>(flow) }.resume(now_us);
}

#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_take<'local>(
    mut env: JNIEnv<'local>,
    _: JClass<'local>,
    flow: jlong,
    chunk: JByteArray<'local>,
) -> JByteArray<'local> {
    guarded(&mut env, |env| {
        let chunk = bytes(env, &chunk)?;
        step(env, flow, |flow, out| flow.take(&Chunk::read(&chunk)?, out))
    })
}

#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_passTime<'local>(
    mut env: JNIEnv<'local>,
    _: JClass<'local>,
    flow: jlong,
    now_us: jlong,
) -> JByteArray<'local> {
    guarded(&mut env, |env| step(env, flow, |flow, out| flow.pass_time(now_us, out)))
}

#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_finish<'local>(
    mut env: JNIEnv<'local>,
    _: JClass<'local>,
    flow: jlong,
    stream: jint,
) -> JByteArray<'local> {
    guarded(&mut env, |env| step(env, flow, |flow, out| flow.finish(stream as u16, out)))
}

#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_end<'local>(
    mut env: JNIEnv<'local>,
    _: JClass<'local>,
    flow: jlong,
    now_us: jlong,
) -> JByteArray<'local> {
    guarded(&mut env, |env| step(env, flow, |flow, out| flow.end(now_us, out)))
}

#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_snapshot<'local>(
    mut env: JNIEnv<'local>,
    _: JClass<'local>,
    flow: jlong,
) -> JByteArray<'local> {
    guarded(&mut env, |env| {
        // SAFETY: a flow's handle, used by its task's thread alone.
        let flow: &mut Flow = unsafe { held(flow) };
        array(env, &flow.snapshot().map_err(told)?)
    })
}

/// Of each stream: read, scored, malformed, duplicate, too late, late; then alerts, revisions, flipped decisions, sessions, matches,
/// withdrawn matches.
#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_counts<'local>(
    mut env: JNIEnv<'local>,
    _: JClass<'local>,
    flow: jlong,
) -> JLongArray<'local> {
    guarded(&mut env, |env| {
        // SAFETY: a flow's handle, used by its task's thread alone.
        let counts: &Counts = unsafe { held::<Flow>(flow) }.counts();
        let streams = counts.streams.iter();
        let mut all: Vec<u64> =
            streams.flat_map(|s| [s.read, s.scored, s.malformed, s.duplicate, s.too_late, s.late]).collect();
        let Counts { alerts, revisions, flipped, sessions, matches, withdrawn, .. } = *counts;
        all.extend([alerts, revisions, flipped, sessions, matches, withdrawn]);
        let all: Vec<i64> = all.into_iter().map(|count| count as i64).collect();
        let array = env.new_long_array(all.len() as jint).map_err(told)?;
        env.set_long_array_region(&array, 0, &all).map_err(told)?;
        Ok(array)
    })
}

#[no_mangle]
pub extern "system" fn Java_gillnet_host_Native_closeFlow(_: JNIEnv<'_>, _: JClass<'_>, flow: jlong) {
    close::<Flow>(flow);
}
