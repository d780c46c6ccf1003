"""Every text of the outage panel, in both languages."""

from typing import Final

PANEL: Final[dict[str, dict[str, str]]] = {
    "en": {
        "lab": "Outage lab",
        "lab_intro": "Stop real servers and watch what the session still does.",
        "lab_none": "No switches here. Stop a server by hand, for example: docker compose stop primary",
        "worker": "answered by worker",
        "level": "Level",
        "stop": "Stop",
        "start": "Start",
        "freeze": "Freeze",
        "thaw": "Thaw",
        "primary": "Valkey primary",
        "replica": "Valkey replica",
        "database": "PostgreSQL",
        "feature": "Feature",
        "priority": "Priority",
        "behaviour": "Behaviour",
        "source": "Store",
        "table_intro": "What each feature got in the last request, and from where.",
        "aws": "What AWS hears",
        "aws_intro": "Alerts as SNS messages, newest first, and CloudWatch metrics of the last minutes.",
        "aws_no_messages": "No alert yet. Stop a server and wait some seconds.",
    },
    "jp": {
        "lab": "障害ラボ",
        "lab_intro": "本物のサーバーを止めて、セッションの動きを確かめられます。",
        "lab_none": "ここにはスイッチがありません。手動で停止できます(例:docker compose stop primary)。",
        "worker": "応答したワーカー",
        "level": "レベル",
        "stop": "停止",
        "start": "起動",
        "freeze": "凍結",
        "thaw": "解凍",
        "primary": "Valkey プライマリ",
        "replica": "Valkey レプリカ",
        "database": "PostgreSQL",
        "feature": "機能",
        "priority": "優先度",
        "behaviour": "ふるまい",
        "source": "取得元",
        "table_intro": "直近のリクエストで、各機能が何をどこから得たか。",
        "aws": "AWSに届いたもの",
        "aws_intro": "アラートはSNSメッセージ(新しい順)、下は直近数分のCloudWatchメトリクスです。",
        "aws_no_messages": "アラートはまだありません。サーバーを止めて、数秒待ってください。",
    },
}

#: One sentence per level.
LEVELS: Final[dict[str, tuple[str, ...]]] = {
    "en": (
        "Normal. The primary takes reads and writes.",
        "The primary is gone. The replica answers reads, the database decides about sign-ins.",
        "No Redis answers. Local copies carry the work, the database decides about sign-ins.",
        "No Redis answers and the local copies are too old. Sign-ins go on, the rest is switched off.",
        "Neither Redis nor the database answers. What was confirmed a moment ago still counts.",
    ),
    "jp": (
        "通常。プライマリが読み書きに応答しています。",
        "プライマリが停止中。読み取りはレプリカ、サインインの判断はデータベースが行います。",
        "Redis が応答しません。作業はローカルコピーで続き、サインインはデータベースが判断します。",
        "Redis が応答せず、ローカルコピーも古くなりました。サインインのみ続き、ほかは休止します。",
        "Redis もデータベースも応答しません。直前に確認できた情報だけが有効です。",
    ),
}

STATES: Final[dict[str, dict[str, str]]] = {
    "en": {"running": "running", "stopped": "stopped", "frozen": "frozen", "unknown": "unknown"},
    "jp": {"running": "稼働中", "stopped": "停止", "frozen": "凍結中", "unknown": "不明"},
}

FEATURES: Final[dict[str, dict[str, str]]] = {
    "en": {
        "authentication": "Sign-in",
        "oauth_tokens": "OAuth tokens",
        "sign_in_steps": "Steps of a sign-in",
        "csrf_protection": "Form protection",
        "session_security": "Session life",
        "translation_state": "Texts and history",
        "engine_selection": "Engine",
        "usage_tracking": "Usage counter",
        "analysis_cache": "Analysis cache",
        "language_preference": "Language",
        "ui_settings": "Theme",
        "statistics": "Statistics",
        "temporary_data": "Temporary data",
        "other": "Other keys",
    },
    "jp": {
        "authentication": "サインイン",
        "oauth_tokens": "OAuthトークン",
        "sign_in_steps": "サインインの途中",
        "csrf_protection": "フォーム保護",
        "session_security": "セッション期限",
        "translation_state": "テキストと履歴",
        "engine_selection": "エンジン",
        "usage_tracking": "利用回数",
        "analysis_cache": "分析キャッシュ",
        "language_preference": "表示言語",
        "ui_settings": "テーマ",
        "statistics": "統計",
        "temporary_data": "一時データ",
        "other": "その他",
    },
}
