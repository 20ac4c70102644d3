// Pictures that go with a prompt: pasted, dropped or chosen.
import {$, make, plain} from './dom.js';

const KINDS = ['image/png', 'image/jpeg', 'image/gif', 'image/webp'];
/** Models take no more at once; one line of ACP has to hold them. */
const COUNT = 10;
/** Larger ones, in bytes, are made smaller: their longer edge in pixels. */
const LARGE = 3 * 1024 * 1024;
const EDGE = 2000;

/** `isAllowed` says whether the agent takes pictures, `problem` what went wrong. */
export function attachments(isAllowed, problem) {
  /** Of each session: `{name, url}`, the latter as `data:`. */
  const kept = new Map();
  let session = null;
  const here = () => kept.get(session) ?? [];

  async function add(files) {
    const to = session;
    for (const file of files) {
      if (!to || !isAllowed()) return;
      if (!KINDS.includes(file.type)) {
        problem(`${plain(file.name)} is not attached: it is no PNG, JPEG, GIF or WebP picture.`);
        continue;
      }
      try {
        const url = file.size > LARGE ? await smaller(file) : await read(file);
        const before = kept.get(to) ?? [];
        if (before.length >= COUNT) return problem(`At most ${COUNT} pictures go with a prompt.`);
        kept.set(to, [...before, {name: file.name || 'picture', url}]);
      } catch {
        problem(`${plain(file.name)} cannot be read as a picture.`);
      }
    }
    show();
  }

  function read(file) {
    return new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = reject;
      reader.readAsDataURL(file);
    });
  }

  async function smaller(file) {
    const bitmap = await createImageBitmap(file);
    const scale = Math.min(1, EDGE / Math.max(bitmap.width, bitmap.height));
    const canvas = make('canvas', {width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale)});
    canvas.getContext('2d').drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    return canvas.toDataURL('image/jpeg', 0.85);
  }

  function show() {
    $('attach').hidden = !isAllowed();
    const all = isAllowed() ? here() : [];
    $('images').replaceChildren(...all.map(it => {
      const remove = make('button', {type: 'button', className: 'quiet', ariaLabel: `Remove ${plain(it.name)}`, title: 'Remove'}, ['×']);
      remove.addEventListener('click', () => {
        kept.set(session, here().filter(other => other !== it));
        show();
        $('prompt').focus();
      });
      return make('li', {}, [make('img', {src: it.url, alt: plain(it.name)}), remove]);
    }));
    $('images').hidden = !all.length;
  }

  $('attach').addEventListener('click', () => $('files').click());
  $('files').addEventListener('change', async () => {
    await add([...$('files').files]);
    $('files').value = '';
    $('prompt').focus();
  });
  $('prompt').addEventListener('paste', event => {
    const files = [...event.clipboardData?.files ?? []];
    if (!files.length || !isAllowed()) return;
    event.preventDefault();
    add(files);
  });
  $('composer').addEventListener('dragover', event => { if (isAllowed()) event.preventDefault(); });
  $('composer').addEventListener('drop', event => {
    const files = [...event.dataTransfer?.files ?? []];
    if (!files.length || !isAllowed()) return;
    event.preventDefault();
    add(files);
  });

  return {
    show,
    /** Another session is shown, or none. */
    open(id) {
      session = id;
      show();
    },
    /** Those of the session that is shown, which has none then. */
    take() {
      const all = isAllowed() ? here() : [];
      if (all.length) kept.delete(session);
      show();
      return all;
    },
    /** Those of a prompt that could not be sent. */
    giveBack(id, all) {
      if (all.length) kept.set(id, [...all, ...kept.get(id) ?? []]);
      show();
    },
    forget(id) {
      kept.delete(id);
    },
    isEmpty: () => !isAllowed() || !here().length,
    /** As content blocks of ACP. */
    blocks: all => all.map(({url}) => {
      const [, mimeType, data] = /^data:([^;,]+);base64,(.*)$/s.exec(url);
      return {type: 'image', mimeType, data};
    }),
  };
}
