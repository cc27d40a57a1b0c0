//! `cargo bench -p highwater-benches`: the measured pieces, grouped and named like the module they measure.
//!
//! `-- ranking` runs one group. The bodies are in the library, where the tests run them too.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use highwater_benches::{Scale, batch, history, lanes, log, ranking};
use std::hint::black_box;

const SCALE: Scale = Scale::FULL;

fn ranking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ranking");
    let mut apply = ranking::Apply::new(SCALE);
    group.throughput(Throughput::Elements(SCALE.batch_views.into()));
    group.bench_function("apply", |bencher| bencher.iter(|| black_box(apply.run())));
    group.finish();
}

fn batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    let (mut build, check) = (batch::Build::new(SCALE), batch::Check::new(SCALE));
    group.throughput(Throughput::Elements(SCALE.batch_views.into()));
    group.bench_function("build", |bencher| bencher.iter(|| black_box(build.run())));
    group.bench_function("verify_decode", |bencher| bencher.iter(|| black_box(check.run())));
    group.finish();
}

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    let mut append = log::Append::new(SCALE);
    group.throughput(Throughput::Bytes(append.payload_bytes() as u64));
    group.bench_function("append", |bencher| bencher.iter(|| black_box(append.run())));
    group.finish();
}

fn lanes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lanes");
    let mut lane = lanes::PushPop::new(SCALE);
    group.throughput(Throughput::Elements(SCALE.batch_views.into()));
    group.bench_function("push_pop", |bencher| bencher.iter(|| black_box(lane.run())));
    group.finish();
}

fn history(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("history");
    let mut close = history::Close::new(SCALE);
    group.throughput(Throughput::Elements(SCALE.videos.into()));
    group.sample_size(10);
    group.bench_function("close_period", |bencher| bencher.iter(|| black_box(close.run())));
    group.finish();
}

criterion_group!(modules, ranking, batch, log, lanes, history);
criterion_main!(modules);
