#!/bin/sh
# Pictures and sounds on the command line and over HTTP, from outside: tests/test_cli_media.sh
# CARAT. Every check is one line, "ok NAME" or "not ok NAME"; the last line is "N passed, N failed,
# N skipped". Uses nano on the CPU; its answers are those of tests/golden/nano.
# shellcheck source=tests/cli.sh
. "$(dirname "$0")/cli.sh"

golden=$tests/golden/nano
media=$tests/media
family=$tests/golden/family

# refused NAME PATTERN: an error in one sentence, and nothing on stdout.
refused() {
    bad=0
    { [ "$status" -eq 1 ] || [ "$status" -eq 2 ]; } || bad=1
    [ ! -s out ] && [ "$(wc -l <err)" -eq 1 ] || bad=1
    grep -aqE -e "$2" err || bad=1
    result "$1" $bad
}

# Whether this build can read a file, which is read before the model is looked for.
can() { # OPTION FILE
    ! "$carat" run ./none.gguf "$1" "$2" hi 2>&1 </dev/null | LC_ALL=C grep -aq 'was built without'
}

# 70 soft tokens are quick on a CPU; nano takes the cross for a star with so few.
ask="nano --device cpu --temperature 0 --max-tokens 40 --image-tokens 70"
cross="^A red (star|cross) at the top and a purple star at the bottom\."
circles="^A white circle at the top and a purple circle at the bottom\."
describe="Describe the picture."

if ! can --image "$media/one.png"; then
    skip "pictures and sounds" "this carat was built without stb_image"
    finish
fi

# ---- pictures ----
run run $ask --image "$golden/shapes_9.png" "$describe"
expect "a PNG" 0 "$cross"
[ ! -s err ]
result "and stderr is empty" $?
for file in shapes.jpg shapes.gif frames.gif shapes.bmp shapes16.png shapes.webp; do
    if can --image "$media/$file"; then
        run run $ask --image "$media/$file" "$describe"
        expect "$file" 0 "$cross"
    else
        skip "$file" "this carat was built without libwebp"
    fi
done
run run $ask --image "$media/turned.jpg" "$describe"
expect "a JPEG that EXIF turns" 0 "$circles"
run run $ask --image "$golden/shapes_0.png" "What shape is brown?"
expect "a question about a picture" 0 "^The star is brown\."
run run $ask --image-tokens 280 --image "$golden/shapes_1.png" "Read the text in the picture."
expect "280 tokens" 0 "^GEM$"
run run $ask --json --image "$golden/shapes_4.png" "What is written here?"
expect "--json" 0 '"text":"6"' '"finish":"stop"' '"prompt":[0-9]+'
cp out first
run run $ask --image-tokens 100 --image "$golden/shapes_4.png" hi
expect "numbers of tokens that there are not" 2 "70, 140, 280, 560"
run run $ask --verbose --image "$golden/shapes_4.png" "What is written here?"
expect "--verbose" 0 "[0-9]+ tokens of pictures and sounds in [0-9.]+ s"
printf '%s' "$describe" >prompt.txt
run run $ask --image "$golden/shapes_17.png" --file prompt.txt
expect "the prompt from a file" 0 "$circles"
piped "$describe" run $ask --image "$golden/shapes_17.png"
expect "or through stdin" 0 "$circles"
run run $ask --image "$golden/shapes_17.png"
expect "a picture without words" 0
run run $ask --image "$golden/shapes_2.png" --image "$golden/shapes_11.png" \
    "What color is the background?"
expect "two pictures" 0 "background is (blue|yellow)"
run run $ask --image "$golden/shapes_2.png" --image "$golden/shapes_11.png" --json hi
n=$(sed -n 's/.*"prompt":\([0-9]*\).*/\1/p' out)
[ "${n:-0}" -gt 120 ]
result "both are in the prompt" $?
run run $ask --json --video-frame 0:"$golden/shapes_9.png" \
    --video-frame 1.5:"$golden/shapes_17.png" "$describe"
expect "frames of a video" 0 '"finish":"stop"'
n=$(sed -n 's/.*"prompt":\([0-9]*\).*/\1/p' out)
[ "${n:-0}" -gt 130 ]
result "with their times" $?

"$carat" run nano --device cpu --image "$golden/shapes_0.png" --image-tokens 1120 hi \
    >out 2>err </dev/null &
pid=$!
sleep 0.5
kill -INT $pid 2>/dev/null
wait $pid
status=$?
[ $status -eq 130 ] || [ $status -eq 0 ] # or it was done
result "Ctrl-C while a picture is encoded" $?

# ---- sounds ----
if can --audio "$golden/speech_8.wav"; then
    run run $ask --audio "$golden/speech_8.wav" "Transcribe the audio."
    expect "a WAV" 0 "^stop$"
    run run $ask --audio "$golden/speech_5_44k_stereo.wav" "Write down what is said."
    expect "44.1 kHz stereo" 0 "^purple six blue$"
    for file in stop.flac stop.ogg stop.mp3; do
        run run $ask --audio "$media/$file" "Transcribe the audio."
        if grep -aq 'not a sound' err && [ $file = stop.mp3 ]; then
            skip "$file" "this libsndfile is older than 1.1"
        else
            expect "$file" 0 "^stop$"
        fi
    done
    run run $ask --audio "$golden/speech_8.wav" --image "$golden/shapes_9.png" --json \
        "Transcribe the audio."
    expect "a sound, then a picture" 0 '"finish":"stop"' '"generated":[0-9]+'
else
    skip "sounds" "this carat was built without libsndfile"
fi

# ---- what cannot be read ----
head -c 1000 "$media/shapes.jpg" >cut.jpg
run run $ask --image cut.jpg hi
refused "a JPEG that is cut short" "^carat: cut.jpg: the JPEG is cut short"
head -c 500 "$golden/shapes_9.png" >cut.png
run run $ask --image cut.png hi
refused "a PNG that is cut short" "^carat: cut.png: a PNG picture cannot be read"
printf 'PK\003\004and so on' >zip.png
run run $ask --image zip.png hi
refused "a ZIP named .png" "^carat: zip.png: not a picture .* a ZIP archive"
# Four colours and no word about them: the frame of a JPEG changed.
{
    printf '\377\330\377\300\000\024\010\000\010\000\010\004\001\021\000\002\021\000'
    printf '\003\021\000\004\021\000\377\331'
} >cmyk.jpg
run run $ask --image cmyk.jpg hi
refused "a CMYK JPEG that stays dark" "^carat: cmyk.jpg: a JPEG of four colours"
run run $ask --image . hi
refused "a folder" "a directory"
mkfifo pipe
run run $ask --image pipe hi
refused "a pipe" "^carat: pipe: a pipe"
run run $ask --image missing.png hi
refused "a missing file" "missing.png: No such file"
: >empty.png
run run $ask --image empty.png hi
refused "an empty file" "empty.png: empty"
run run $ask --image "$golden/speech_8.wav" hi
refused "a sound as a picture" "it looks like a WAV sound"
run run $ask --image "$media/one.png" "$describe"
expect "a picture of one pixel" 0
run run $ask --image "$media/wide.png" hi
expect "a picture of 10000 x 3 pixels" 0
run run $ask --image-tokens 280 --image "$media/wide.png" hi
refused "wider than nano knows" "10000x3 pixels"
run run $ask --video-frame "$media/one.png" hi
refused "a frame without its time" "SECONDS:FILE"
run run $ask --raw --image "$media/one.png" hi
refused "--raw" "no pictures"
if can --audio "$golden/speech_8.wav"; then
    wav() { # BYTES-OF-DATA, as \ooo in the order of the file: a WAV's head, 16 kHz, mono, 16 bits
        printf 'RIFF\377\377\377\177WAVEfmt \020\000\000\000\001\000\001\000'
        printf '\200\076\000\000\000\175\000\000\002\000\020\000data%b' "$1"
    }
    { wav '\0200\0076\0000\0000' && head -c 16000 /dev/zero; } >silence.wav
    run run $ask --audio silence.wav "Transcribe the audio."
    expect "silence" 0
    { wav '\0100\0001\0000\0000' && head -c 320 /dev/zero; } >short.wav
    run run $ask --audio short.wav hi
    refused "10 ms" "10.0 ms are too short"
    wav '\0000\0020\0276\0015' >long.wav # 230,559,744 bytes, of which the disk holds none
    truncate -s 230559788 long.wav
    run run $ask --audio long.wav hi
    refused "two hours" "^carat: long.wav: 2 h 0 min of sound; carat hears 10 min"
    head -c 9000 "$golden/speech_8.wav" >cut.wav
    run run $ask --audio cut.wav hi
    refused "a WAV that is cut short" "^carat: cut.wav: the WAV is cut short"
    head -c 6000 "$media/stop.flac" >cut.flac
    run run $ask --audio cut.flac hi
    refused "a FLAC that is cut short" "^carat: cut.flac: "
    run run $ask --audio "$media/one.png" hi
    refused "a picture as a sound" "it looks like a PNG picture"
fi

# ---- models and their encoders ----
run inspect nano
expect "inspect shows the encoders" 0 "^encoders" "vision +4 layers" "audio +3 layers" \
    "with the first picture"
run list
expect "list says what a model takes" 0 "text, pictures, sounds"
cp "$family/dense31.gguf" text.gguf
run run text.gguf --device cpu --image "$media/one.png" hi
refused "a model without encoders" "no vision encoder"
run run nano --device cpu --mmproj "$family/e4b-mmproj.gguf" --image "$media/one.png" hi
refused "a projector of another model" "belongs to another model: .* 128 values wide, .* 256"
run run text.gguf --device cpu --mmproj "$family/dense31.gguf" --image "$media/one.png" hi
refused "a projector that is none" "no encoder in it|no projector"
run run text.gguf --device cpu --mmproj missing.gguf --image "$media/one.png" hi
refused "a projector that is missing" "missing.gguf"
run run text.gguf --device cpu --mmproj "$family/dense31-mmproj.gguf" --max-tokens 2 \
    --image-tokens 70 --image "$media/shapes.jpg" hi
expect "--mmproj" 0
run inspect text.gguf
expect "no encoders" 0 "none: the model takes text only"
mkdir beside && cp text.gguf "$family/dense31-mmproj.gguf" beside/
run inspect beside/text.gguf
expect "a projector beside the model is found" 0 "in beside/dense31-mmproj.gguf"
run inspect text.gguf --mmproj "$family/dense31-mmproj.gguf"
expect "inspect --mmproj" 0 "vision +[0-9]+ layers" "in .*dense31-mmproj.gguf"

# ---- chat ----
cp "$golden/shapes_17.png" here.png
piped "/image here.png\n$describe\n/save talk.json\n" chat $ask
expect "/image" 0 "attached to the next message: here.png, 96 x 160 pixels" "$circles" "saved 2"
grep -aq "\"path\":\"$dir/here.png\"" talk.json
result "the conversation keeps the path" $?
piped '/load talk.json\n/retry\n' chat $ask
expect "and finds the picture again" 0 "^2 messages" "$circles"
rm here.png talk.json.kv
piped '/load talk.json\n/save again.json\n' chat $ask
expect "a picture that is gone is told" 0 "here.png: No such file.*goes on without it" "2 messages"
! grep -aq here.png again.json
result "and left out" $?
run run $ask --messages talk.json hi
refused "run wants it" "here.png: No such file"
piped "/image missing.png\n/image $golden/shapes_4.png\n/image off\nWhat is 23 + 45?\n" chat $ask
expect "/image off" 0 "missing.png: No such file" "1 taken back" "= 68"
piped "$describe\nWhat is 23 + 45?\n/undo\n/undo\n$describe\n" chat $ask \
    --image "$golden/shapes_17.png"
expect "a picture from the command line" 0 "$circles" "= 68" "2 messages taken back, 0 left"
if can --audio "$golden/speech_8.wav"; then
    piped "/audio $golden/speech_8.wav\nTranscribe the audio.\n" chat $ask
    expect "/audio" 0 "0.6 s of sound" "^stop$"
fi

# ---- HTTP ----
if ! command -v curl >/dev/null || ! command -v base64 >/dev/null; then
    skip "carat serve" "there is no curl or base64"
    finish
fi
mkdir app && echo '<!doctype html>' >app/index.html
"$carat" serve --port 0 --device cpu --app app >out 2>err </dev/null &
server=$!
url=
for _ in $(seq 200); do
    url=$(sed -n 's/^carat serves \(.*\)\/$/\1/p' out 2>/dev/null)
    { [ -n "$url" ] || ! kill -0 $server 2>/dev/null; } && break
    sleep 0.05
done
if [ -z "$url" ]; then
    if grep -aq 'without libmicrohttpd' err; then
        skip "carat serve" "this carat was built without libmicrohttpd"
    else
        status=1
        result "carat serve starts" 1
    fi
    server=
    finish
fi

# post PATH: body.json there; the status to $status, the answer to out.
post() {
    : >err
    status=$(curl -s --max-time 60 -o out -w '%{http_code}' -H 'Content-Type: application/json' \
        --data-binary @body.json "$url$1")
}
picture=$(base64 -w 0 "$media/shapes.jpg")
sound=$(base64 -w 0 "$golden/speech_8.wav")

# openai PARTS: a question to nano
openai() {
    printf '{"model":"nano","temperature":0,"messages":[{"role":"user","content":[%s]}]}' "$1" \
        >body.json
    post /v1/chat/completions
}
openai "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/jpeg;base64,$picture\"}},
    {\"type\":\"text\",\"text\":\"$describe\"}"
expect "OpenAI: a picture" 200 "A red (star|cross) at the top and a purple star at the bottom"
if can --audio "$golden/speech_8.wav"; then
    openai "{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"$sound\",\"format\":\"wav\"}},
        {\"type\":\"text\",\"text\":\"Transcribe the audio.\"}"
    expect "OpenAI: a sound" 200 '"content":"stop"'
fi
openai '{"type":"image_url","image_url":{"url":"https://example.org/a.png"}}'
expect "URLs are not fetched" 400 "https://example.org/a.png: carat fetches nothing"
openai '{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}'
expect "nor are files" 400 "carat fetches nothing"
openai '{"type":"image","path":"/etc/passwd"}'
expect "whatever they are called" 400 "image 1: a file"
openai '{"type":"image_url","image_url":{"url":"data:image/png;base64,UEsDBA=="}}'
expect "a picture that is none" 400 "image 1: not a picture .*ZIP archive"
openai '{"type":"image_url","image_url":{"url":"data:image/png;base64,@@"}}'
expect "base64 that is none" 400 "image 1: not base64"
printf '{"model":"nano","stream":false,"options":{"temperature":0},"messages":[{"role":"user",
    "content":"%s","images":["%s"]}]}' "$describe" "$picture" >body.json
post /api/chat
expect "Ollama: chat" 200 "A red (star|cross) at the top and a purple star at the bottom"
printf '{"model":"nano","stream":false,"options":{"temperature":0},"prompt":"%s","images":["%s"]}' \
    "$describe" "$picture" >body.json
post /api/generate
expect "Ollama: generate" 200 "A red (star|cross) at the top and a purple star at the bottom"
printf '{"model":"nano"}' >body.json
post /api/show
expect "Ollama: show" 200 '"capabilities":\[[^]]*"vision","audio"\]'
{
    printf '{"model":"nano","messages":[{"role":"user","content":"x","images":["'
    head -c 40000000 /dev/zero | tr '\0' A
    printf '"]}]}'
} >body.json
post /api/chat
expect "a body that is too large" 413 "larger than 32 MiB"
kill -INT $server
wait $server
server=
finish
