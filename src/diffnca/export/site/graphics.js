// The engine on a graphics card: WebGPU runs the kernels of cell.wgsl and pixels.wgsl.

import { download } from "./download.js";
import { asHalves } from "./weights.js";

const JOB_BYTES = 256, MOST_JOBS = 256;
const SOFTWARE = /swiftshader|llvmpipe|software|basic render/i; // adapters that compute on the processor

export class Graphics {
  // Return an engine on the graphics card of this machine; `null` where there is none that works.
  static async open() {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" }).catch(() => null);
    const isHalf = adapter?.features.has("shader-f16");
    const device = await adapter?.requestDevice({ requiredFeatures: isHalf ? ["shader-f16"] : [] }).catch(() => null);
    if (!device) return null;
    const texts = await Promise.all(["shared", "cell", "pixels"].map((name) => download(`${name}.wgsl`).then((answer) => answer.text())));
    return new Graphics(adapter, device, isHalf, texts);
  }

  // Call `fail` with an error that no later call will report: no memory, or the card is gone.
  watch(fail) {
    this.device.addEventListener("uncapturederror", ({ error }) => fail(new Error(`The graphics card refused: ${error.message}`)));
    this.device.lost.then(({ message }) => fail(new Error(`The graphics card stopped; reload the page. ${message}`)));
  }

  constructor(adapter, device, isHalf, [shared, cell, pixels]) {
    Object.assign(this, { device, isHalf, info: adapter.info });
    const start = isHalf ? "enable f16;\nalias half4 = vec4<f16>;\n" : "alias half4 = vec4f;\n";
    this.cellModule = device.createShaderModule({ code: start + shared + cell });
    this.pixelModule = device.createShaderModule({ code: shared + pixels });
    const entry = (binding, type, hasDynamicOffset = false) =>
      ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type, hasDynamicOffset } });
    const jobs = entry(0, "uniform", true);
    this.cellLayout = device.createBindGroupLayout({ entries: [jobs, entry(1, "read-only-storage"),
      entry(2, "read-only-storage"), entry(3, "read-only-storage"), entry(4, "storage")] });
    this.pixelLayout = device.createBindGroupLayout({ entries: [jobs, ...[1, 2, 3, 4, 5, 6].map((n) => entry(n, "storage"))] });
    this.jobs = device.createBuffer({ size: JOB_BYTES * MOST_JOBS, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
    this.jobData = new DataView(new ArrayBuffer(JOB_BYTES * MOST_JOBS));
    this.queued = [];
  }

  get isSlow() { return SOFTWARE.test(`${this.name} ${this.info.architecture}`); }

  get name() {
    const { description, device, vendor, architecture } = this.info;
    return description || [device || vendor, architecture].filter(Boolean).join(" ") || "a graphics card";
  }

  buffer(bytes) {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    return this.device.createBuffer({ size: Math.max(16, 4 * Math.ceil(bytes / 4)), usage });
  }

  filled(data) {
    const made = this.buffer(data.byteLength);
    this.device.queue.writeBuffer(made, 0, data);
    return made;
  }

  weights(data) { return this.filled(this.isHalf ? asHalves(data) : data); }

  write(buffer, at, words, first, count) { this.device.queue.writeBuffer(buffer, 4 * at, words, first, count); }

  cellKernel(entry, constants) { return this.kernel(this.cellModule, this.cellLayout, entry, constants); }

  pixelKernel(entry, constants) { return this.kernel(this.pixelModule, this.pixelLayout, entry, constants); }

  cellGroup(buffers) { return this.group(this.cellLayout, buffers); }

  pixelGroup(buffers) { return this.group(this.pixelLayout, buffers); }

  kernel(module, group, entryPoint, constants) {
    const layout = this.device.createPipelineLayout({ bindGroupLayouts: [group] });
    return this.device.createComputePipelineAsync({ layout, compute: { module, entryPoint, constants } });
  }

  group(layout, buffers) {
    const jobs = { binding: 0, resource: { buffer: this.jobs, size: JOB_BYTES } };
    const entries = buffers.map((buffer, index) => ({ binding: index + 1, resource: { buffer } }));
    return this.device.createBindGroup({ layout, entries: [jobs, ...entries] });
  }

  // Put a kernel on the list; `job` has the fields of shared.wgsl.
  queue(pipeline, group, groups, job) {
    if (this.queued.length === MOST_JOBS) this.submit();
    const at = this.queued.length * JOB_BYTES, view = this.jobData;
    const words = [...job.grid, ...job.first, ...job.size, ...job.edge, ...job.place, ...job.canvas, ...job.ring, ...job.key,
      job.dilation ?? 0, job.modulation ?? 0, job.clock ?? 0, job.flags ?? 0, job.tile ?? 0, 0, 0, 0];
    words.forEach((word, index) => view.setUint32(at + 4 * index, word, true));
    view.setFloat32(at + 4 * (words.length - 3), job.obey ?? 1, true);
    [...(job.level ?? [0, 0, 0, 0]), ...(job.tone ?? [0, 0, 0, 0])].forEach((value, index) =>
      view.setFloat32(at + 4 * (words.length + index), value, true));
    this.queued.push({ pipeline, group, groups, at });
  }

  submit() {
    if (!this.queued.length) return;
    this.device.queue.writeBuffer(this.jobs, 0, this.jobData.buffer, 0, this.queued.length * JOB_BYTES);
    const encoder = this.device.createCommandEncoder(), pass = encoder.beginComputePass();
    for (const { pipeline, group, groups, at } of this.queued) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group, [at]);
      pass.dispatchWorkgroups(...groups);
    }
    pass.end();
    this.device.queue.submit([encoder.finish()]);
    this.queued = [];
  }

  async done() {
    this.submit();
    await this.device.queue.onSubmittedWorkDone();
  }

  async read(buffer, first, bytes) {
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const copy = this.device.createBuffer({ size: bytes, usage });
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, first, copy, 0, bytes);
    this.submit();
    this.device.queue.submit([encoder.finish()]);
    await copy.mapAsync(GPUMapMode.READ);
    const data = copy.getMappedRange().slice(0);
    copy.destroy();
    return data;
  }
}
