// What the page does better with script: it opens files in place, follows changes of the vault, and uploads in a queue.
// Everything except previews works without it.
import { dressChosen, watchChosen } from "./chosen.js";
import { watchDialogs } from "./dialog.js";
import { watchDrops } from "./drop.js";
import { suggestFolders } from "./folders.js";
import { watchForms } from "./forms.js";
import { watchKeys } from "./keys.js";
import { preview } from "./preview.js";
import { dressUpload, watchUploads } from "./uploads.js";
import { enhance, onContent, watchView } from "./view.js";

onContent(preview);
onContent(dressUpload);
onContent(suggestFolders);
onContent(dressChosen);
watchDialogs();
watchForms();
watchChosen();
watchKeys();
watchUploads();
watchDrops();
watchView();
enhance(document.body);
