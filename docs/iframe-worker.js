// Search where the site is opened from its folder: there a browser starts no worker, so a hidden frame does the work of
// one. Material for MkDocs asks for it by this name. Behind http the browser's own workers are used.
if (location.protocol === "file:") {
  class IFrameWorker extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      this.inside = frame.contentWindow
      this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      this.inside.importScripts = async (...urls) => {
        for (const it of urls) await this.load(it)
      }
      this.loaded = this.load(url)
    }

    load(url) {
      const script = this.inside.document.createElement("script")
      return new Promise((resolve, reject) => {
        Object.assign(script, { src: url, onload: resolve, onerror: () => reject(new Error(`${url} cannot be loaded`)) })
        this.inside.document.head.append(script)
      })
    }

    postMessage(data) {
      this.loaded.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
  window.IFrameWorker = window.Worker = IFrameWorker
}
