"use strict";
(async () => {
  const place = document.getElementById("canvas");

  function giveUp(reason) {
    const note = document.getElementById("fallback");
    note.textContent = `The volumes cannot be turned here (${reason}); the figures below show the same.`;
    note.hidden = false;
    place.hidden = true;
    document.querySelector("#viewer .controls").hidden = true;
    place.dataset.state = "fallback";
  }

  if (!document.createElement("canvas").getContext("webgl2")) return giveUp("this browser has no WebGL 2");
  if (typeof DecompressionStream === "undefined") return giveUp("this browser cannot unpack data");

  const bytes = (text) => Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
  const unpacked = (data) => new Response(new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip")));

  // A model of named values as anywidget gives one to a widget, without a kernel behind it.
  function model(values, children) {
    const heard = new Map();
    return {
      _comm_live: false,
      send_sync_message() {},
      save_changes() {},
      send() {},
      get: (key) => (key in values ? values[key] : null),
      set(key, value) {
        values[key] = value;
        for (const tell of heard.get(`change:${key}`) ?? []) tell();
      },
      on(event, tell) {
        if (!heard.has(event)) heard.set(event, new Set());
        heard.get(event).add(tell);
      },
      off(event, tell) {
        if (tell) heard.get(event)?.delete(tell);
        else heard.delete(event);
      },
      widget_manager: { get_model: async (id) => children.get(id) },
    };
  }

  function volume(layer, data, number, opacity) {
    return model({
      id: `volume-${number}`,
      path: { name: `${number}.nii.gz`, data: new DataView(data.buffer) },
      url: "", data: null, paired_img_path: {}, paired_img_url: "", paired_img_data: null,
      name: `${number}.nii.gz`, colormap: layer.colours, colormap_negative: "", opacity,
      cal_min: layer.low, cal_max: layer.high, cal_min_neg: null, cal_max_neg: null, frame_4d: 0,
      colorbar_visible: false, colormap_type: 0, colormap_invert: false, colormap_label: null,
      modulation_image: null, modulate_alpha: 0,
    }, new Map());
  }

  try {
    const layers = JSON.parse(document.getElementById("layers").textContent);
    const files = [...document.querySelectorAll("script.volume")].map((s) => bytes(s.textContent));
    const code = await unpacked(bytes(document.getElementById("niivue").textContent)).text();
    const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    console.log = () => {}; // the module tells every step
    const { default: widget } = await import(address);
    const children = new Map();
    const root = model({
      volumes: [], meshes: [], height: place.clientHeight, scene: null, graph: null, draw_lut: null,
      opts: { show3Dcrosshair: true, multiplanarForceRender: true, isColorbar: false, backColor: [0, 0, 0, 1],
        crosshairColor: [1, 0.72, 0.3, 0.7], dragAndDropEnabled: false, isRadiologicalConvention: false },
      background_masks_overlays: 0, draw_opacity: 0.8, draw_fill_overwrites: true, overlay_outline_width: 0,
      overlay_alpha_shader: 1, this_model_id: "", other_nv: [],
    }, children);
    const [below, above] = ["below", "above"].map((id) => document.getElementById(id));
    const opacity = document.getElementById("opacity");
    for (const [n, layer] of layers.entries()) {
      below.add(new Option(layer.name, n));
      above.add(new Option(layer.name, n));
    }
    below.value = 0;
    above.value = 1;
    let made = 0;

    function stacked() {
      const pick = [[Number(below.value), 1], [Number(above.value), Number(opacity.value) / 100]];
      return pick.map(([n, share]) => {
        const id = String((made += 1));
        children.set(id, volume(layers[n], files[n], id, share));
        return id;
      });
    }

    let top;
    function restack() {
      const ids = stacked();
      top = children.get(ids[1]);
      root.set("volumes", ids.map((id) => `IPY_MODEL_${id}`));
    }

    restack();
    await widget.initialize({ model: root });
    await widget.render({ model: root, el: place });
    place.dataset.state = "ready";
    below.addEventListener("change", restack);
    above.addEventListener("change", restack);
    opacity.addEventListener("input", () => top.set("opacity", Number(opacity.value) / 100));
  } catch (error) {
    giveUp(String(error && error.message ? error.message : error));
  }
})();
